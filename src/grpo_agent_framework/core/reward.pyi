from stateset_agents.core.reward import *
