"""A model that grades conversations by a rubric, as the reward of a training.

    python -m stateset_agents.examples.llm_judge --base-url http://127.0.0.1:8000/v1 --judge-model NAME

Any OpenAI-compatible server can judge: vLLM, llama.cpp, Ollama, a hosted one. Its API key is named by its environment
variable (`--api-key-env OPENAI_API_KEY`) and never given. What the agent wrote is laid before the judge as evidence,
each question is asked once (`judge_cache`), and a judgement that does not come costs the sample, never the run, and
becomes no reward.

This program starts no server. Without `--base-url`, or with `--stub-judge`, a stand-in in this process grades: it
counts words, understands nothing, and shows that everything around a judge works. Never train for it in earnest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..agents import AgentConfig, MultiTurnAgent
from ..core.environment import ConversationEnvironment
from ..core.scenario import Scenario
from ..engines.chat_model import ChatModel
from ..engines.endpoint import Endpoint
from ..rewards import LLMJudgeReward
from .program import command_line, learn, run

RUBRIC = [
    "The reply answers what was asked, in plain words.",
    "It is one or two short sentences; length, flattery and apologies count for nothing.",
]
QUESTIONS = {
    "sky": "Why is the sky blue?",
    "bread": "Why does bread rise?",
    "ice": "Why does ice float?",
    "leaves": "Why are leaves green?",
    "echo": "What makes an echo?",
    "rust": "Why does iron rust?",
}
HELD_OUT = {
    "tide": "Why is there a tide?",
    "soap": "How does soap clean?",
    "sleep": "Why do we sleep?",
    "wind": "What makes the wind?",
    "salt": "Why is the sea salty?",
    "moon": "Why does the moon shine?",
}


class StubJudge:
    """A `ChatModel` that grades replies by their words: 10 for 5 to 20 of them, half a point less for each beyond."""

    async def complete(
        self, messages: Sequence[Mapping[str, str]], *, key: str, temperature: float, max_tokens: int
    ) -> str:
        """Read the evidence, one JSON object a line, and answer as a judge has to."""
        lines = [line for line in messages[-1]["content"].splitlines() if line.startswith("{")]
        said = [turn["content"] for turn in map(json.loads, lines) if turn.get("role") == "assistant"]
        words = len(" ".join(said).split())
        away = max(5 - words, words - 20, 0)
        return json.dumps({"reason": f"{words} words", "score": max(0, 10 - away / 2)})

    def describe(self) -> dict[str, Any]:
        """As results record it."""
        return {"kind": "stand-in", "model": "counts words", "repeatable": True}


def judge(options: argparse.Namespace) -> ChatModel:
    """Who judges; says so where it is nobody."""
    if options.base_url:
        return Endpoint(options.base_url, options.judge_model, api_key_env=options.api_key_env)
    print(
        "No server judges: a stand-in counts words, and its grades mean nothing. With a server:\n"
        "  python -m stateset_agents.examples.llm_judge --base-url http://127.0.0.1:8000/v1 --judge-model NAME"
    )
    return StubJudge()


def asked(questions: Mapping[str, str]) -> list[Scenario]:
    """One question in each conversation."""
    return [Scenario(id=name, user_responses=(question,)) for name, question in questions.items()]


async def llm_judge(options: argparse.Namespace) -> None:
    """The whole of it."""
    config = AgentConfig(options.model, system_prompt="Explain it to a child.", temperature=0.8, max_new_tokens=48)
    environment = ConversationEnvironment(asked(QUESTIONS), max_turns=1)
    reward = LLMJudgeReward(judge(options), RUBRIC)
    reward.require([])
    print("\n".join(reward.notices([])))
    await learn(MultiTurnAgent(config), environment, reward, options, asked(HELD_OUT))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; returns the exit code."""
    parser = command_line("llm_judge", __doc__, episodes=96)
    parser.add_argument("--judge-model", help="the judge, as its server calls it")
    parser.add_argument("--api-key-env", help="name of the environment variable that holds the server's key")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--base-url", help="of the server, as http://127.0.0.1:8000/v1")
    who.add_argument("--stub-judge", action="store_true", help="the stand-in, which is also the default")
    options = parser.parse_args(arguments)
    if options.base_url and not options.judge_model:
        parser.error("--base-url names a server: --judge-model has to name the model that judges there")
    return run(llm_judge, options)


if __name__ == "__main__":
    sys.exit(main())
