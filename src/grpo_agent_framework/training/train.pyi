from stateset_agents.training.train import *
