from stateset_agents.core.environment import *
