"""A small run in a folder of its own; commands run in it (`workplace.py`)."""

from pathlib import Path
from typing import Any

import pytest

from workplace import Launcher, Workplace

CONFIG: dict[str, Any] = {
    "agent": {"model_name": "tiny", "max_new_tokens": 6, "temperature": 1.0},
    "environment": {"scenarios_file": "scenarios.json", "max_turns": 3},
    "rewards": [{"type": "custom", "module": "my_rewards.vowels"}],
    # 4 steps of 2 scenarios x 2 conversations, a checkpoint after every second one
    "training": {
        "num_episodes": 16,
        "num_generations": 2,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "mixed_precision": False,
        "save_every": 8,
        "eval_every": 0,
    },
}
SCENARIOS = [
    {"id": "price", "user_responses": ["What does it cost?", "Thanks."]},
    {"id": "order", "user_responses": ["Where is my order?", "And when does it come?"]},
    {"id": "refund", "user_responses": ["I want a refund."]},
]
REWARDS = '''
async def vowels(turns, context=None):
    """A share that differs between almost any two replies."""
    text = "".join(turn.content for turn in turns if turn.role == "assistant").lower()
    return sum(letter in "aeiou" for letter in text) / (len(text) + 1)
'''


@pytest.fixture
def work(tmp_path: Path, launcher: Launcher) -> Workplace:
    work = Workplace(tmp_path, launcher, CONFIG)
    work.write()
    work.scenarios({"scenarios": SCENARIOS})
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    return work
