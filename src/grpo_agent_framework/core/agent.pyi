from stateset_agents.core.agent import *
