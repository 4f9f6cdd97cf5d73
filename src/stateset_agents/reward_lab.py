"""`python -m stateset_agents.reward_lab`: the command `grpo-reward-lab`."""

from .cli.reward_lab import main

if __name__ == "__main__":
    main()
