"""Training: from conversations to new weights.

Invariant: importing this package loads nothing heavy. `training.train` is a module; the function of that name in it is
also `stateset_agents.train`.
"""
