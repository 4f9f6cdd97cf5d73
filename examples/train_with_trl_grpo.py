"""Train a customer-service agent with TRL's GRPO trainer.

    QUICK_MODE=true python examples/train_with_trl_grpo.py    # a random model, under a minute on a CPU
    MODEL_NAME=smollm2-135m-instruct NUM_EPISODES=320 python examples/train_with_trl_grpo.py

Settings come from the environment variables that docs/trl.md lists. Without OUTPUT_DIR each run gets a folder of its
own, outputs/trl_grpo_training/<time>, with its log file in it.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

from stateset_agents.core.errors import StatesetError
from stateset_agents.training import TRLGRPOConfig
from stateset_agents.training.trl.customer_service import train_customer_service


async def main() -> None:
    """Train, and ask the trained agent something."""
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    config = TRLGRPOConfig.from_env(output_dir=f"./outputs/trl_grpo_training/{stamp}")
    agent = await train_customer_service(config)
    question = "Where is my order?"
    answer = await agent.generate_response(messages=[{"role": "user", "content": question}])
    print(f"\nuser: {question}\nassistant: {answer}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except StatesetError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
