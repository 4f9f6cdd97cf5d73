from stateset_agents.core import *
