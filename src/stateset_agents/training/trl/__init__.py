"""The bridge to TRL: our agents, environments and rewards under its GRPO trainer.

Invariant: importing this package, its config included, loads neither TRL nor torch. Conversations are held by our own
engine with the very weights that TRL trains; TRL samples nothing. What is saved is in our checkpoint format.
"""
