from stateset_agents.core.trajectory import *
