from stateset_agents.training import *
