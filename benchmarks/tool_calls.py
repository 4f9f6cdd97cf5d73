"""What tools cost: eight conversations make two rounds of calls, each call takes 0.2 s.

Measured is the time from the beginning of the first call to the end of the last one, in which the model speaks once
between the rounds. Conversations are played as training plays them, by an agent whose replies are scripted, so that
next to nothing but the tool takes time. Beside it: the same conversations one after another, and TRL's own tool loop
(`GRPOTrainer(tools=[...])`) with the same scripted replies, if TRL is installed.

    python benchmarks/tool_calls.py            a table, and one JSON object last; exit code 1 above 0.7 s
    python benchmarks/tool_calls.py --no-trl
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from stateset_agents.agents import AgentConfig, ToolAgent
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.rollouts import play_episode

CONVERSATIONS, ROUNDS, SECONDS = 8, 2, 0.2
GOAL = 0.7
"""Seconds of tool time: two rounds take 0.4 s if no call waits for another."""
QUESTION, ANSWER = "Where is order A26?", "It arrives on Monday."
CALL = '{"name": "find_order", "arguments": {"order": "A26"}}'


@dataclass
class Clock:
    """A tool, and when it ran."""

    calls: list[tuple[float, float]] = field(default_factory=list)

    def find_order(self, order: str) -> str:
        """Where an order is.

        Args:
            order: its number.
        """
        begun = time.monotonic()
        time.sleep(SECONDS)
        self.calls.append((begun, time.monotonic()))
        return "arrives on Monday"

    def span(self) -> float:
        """Seconds from the first call's beginning to the last one's end.

        Raises:
            RuntimeError: not every call was made, so that the time means nothing.
        """
        if len(self.calls) != CONVERSATIONS * ROUNDS:
            raise RuntimeError(f"{len(self.calls)} calls were made instead of {CONVERSATIONS * ROUNDS}")
        return max(end for _, end in self.calls) - min(begun for begun, _ in self.calls)

    def most_at_once(self) -> int:
        """Calls that were under way together."""
        return max(sum(begun <= moment < end for begun, end in self.calls) for moment, _ in self.calls)


async def ours(*, together: bool, awaited: bool) -> Clock:
    """When the tools of our rollouts ran.

    Args:
        together: as training plays them; otherwise one conversation after another.
        awaited: the tool is an async function.
    """
    clock = Clock()

    async def find_order(order: str) -> str:
        begun = time.monotonic()
        await asyncio.sleep(SECONDS)
        clock.calls.append((begun, time.monotonic()))
        return "arrives on Monday"

    # A function and no method: each conversation would have a copy of a method's object, and so of the clock.
    tool: Callable[[str], str | Awaitable[str]] = find_order if awaited else lambda order: clock.find_order(order)
    script = "stub://" + "|".join(quote(reply) for reply in [*[CALL] * ROUNDS, ANSWER])
    agent = ToolAgent(AgentConfig(script), [{"name": "find_order", "function": tool}])
    environment = ConversationEnvironment([{"id": "order", "user_responses": [QUESTION]}], max_turns=1)
    (scenario,) = environment.episode_scenarios()
    await agent.initialize()

    async def play(number: int) -> None:
        episode = await play_episode(agent, environment, scenario, None, key=str(number))
        said = [turn.content for turn in episode.turns if turn.role == "assistant"]
        if said != [*[CALL] * ROUNDS, ANSWER]:
            raise RuntimeError(f"the agent said {said} ({episode.error})")

    if together:
        await asyncio.gather(*map(play, range(CONVERSATIONS)))
    else:
        for number in range(CONVERSATIONS):
            await play(number)
    return clock


def trls() -> float:
    """Tool time of TRL's loop: a step of its GRPOTrainer whose model says what it is told to."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.chat_template_utils import qwen3_chat_template

    from stateset_agents.models import load_model

    tiny = load_model("tiny", dtype="float32", device="cpu")
    tokenizer: Any = tiny.tokenizer
    tokenizer.chat_template = qwen3_chat_template  # one of those whose calls TRL reads
    clock = Clock()
    replies = [*[f"<tool_call>\n{CALL}\n</tool_call>"] * ROUNDS, ANSWER]

    class Scripted(GRPOTrainer):
        said = 0

        def _generate_single_turn(self, prompt_ids: Any, *others: Any, **more: Any) -> Any:
            ids = tokenizer.encode(f"{replies[self.said]}<|im_end|>", add_special_tokens=False)
            self.said += 1
            return [list(ids) for _ in prompt_ids], None

    def find_order(order: str) -> str:
        """Where an order is.

        Args:
            order: its number.

        Returns:
            When it arrives.
        """
        return clock.find_order(order)

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            folder,
            per_device_train_batch_size=CONVERSATIONS,
            num_generations=CONVERSATIONS,
            max_completion_length=512,
            max_tool_calling_iterations=ROUNDS + 1,
            gradient_checkpointing=False,
            max_steps=1,
            use_cpu=True,
            bf16=False,
            dataloader_pin_memory=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = Scripted(
            tiny.model,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": QUESTION}]}]),
            processing_class=tokenizer,
            tools=[find_order],
        )
        trainer.train()
    return clock.span()


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-trl", action="store_true", help="leave TRL out")
    options = parser.parse_args()
    seconds = {
        "threads": asyncio.run(ours(together=True, awaited=False)).span(),
        "async": asyncio.run(ours(together=True, awaited=True)).span(),
        "one_after_another": asyncio.run(ours(together=False, awaited=False)).span(),
    }
    if not options.no_trl and importlib.util.find_spec("trl") is not None:
        seconds["trl"] = trls()
    named = {
        "threads": "ours, a function that blocks",
        "async": "ours, a function that is awaited",
        "one_after_another": "ours, one conversation after another",
        "trl": "TRL's tool loop",
    }
    print(
        f"{CONVERSATIONS} conversations x {ROUNDS} rounds of a call of {SECONDS} s, first call begun to last one ended"
    )
    for name, value in seconds.items():
        print(f"  {named[name]:<38} {value:.2f} s")
    print(json.dumps({"goal": GOAL, "seconds": {name: round(value, 3) for name, value in seconds.items()}}))
    return 0 if max(seconds["threads"], seconds["async"]) < GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
