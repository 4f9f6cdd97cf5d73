"""The reward functions of `core.reward`, one noun a file; import them from there."""
