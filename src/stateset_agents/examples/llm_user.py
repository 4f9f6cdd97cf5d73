"""Customers that are played by a model and answer what the agent said, beside customers with a script.

    python -m stateset_agents.examples.llm_user

The same scenarios are played with three kinds of users: the script, which is deaf to the agent; a ModelUser, which is
told who it is and what it wants; and a mixture of both. Nothing of a user is trained, and what it cannot say (an empty
line, a loop, the assistant's words) ends the conversation as the *user's* failure: counted, without a reward.

Each scenario has a scripted opening, because a small model that opens takes the assistant's part. The embedded model is
a bad customer even so: read what it says. `--user-model` names a better one, `--base-url` an OpenAI-compatible server
that has it; docs/users.md has the rest. With `--episodes` the agent trains against the user that `--user` names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..agents import AgentConfig, LocalChat, MultiTurnAgent
from ..core.environment import ConversationEnvironment
from ..core.reward import EngagementReward
from ..core.scenario import Scenario
from ..core.users import ScriptedUser, User
from ..engines.chat_model import ChatModel
from ..engines.endpoint import Endpoint
from ..environments import MixedUser, ModelUser
from ..evaluation import EvaluationResult
from .program import command_line, learn, look, run, spoken

PERSONA = "A customer of a web shop, polite and short of time"
SCENARIOS = [
    Scenario(
        id=name,
        topic=topic,
        initial_state={"user_goal": goal},
        user_responses=(opening, "Can you tell me more?", "Thanks, that is all."),
    )
    for name, topic, goal, opening in (
        ("late-parcel", "a parcel", "know when it comes", "My parcel is late. When will it come?"),
        ("wrong-size", "shoes that are too small", "change them", "The shoes that I bought are too small."),
        ("broken-cup", "a cup that came broken", "get another one", "The cup that you sent me is broken."),
        ("lost-password", "the account", "log in again", "I cannot log in, I lost my password."),
    )
]


def users(options: argparse.Namespace) -> dict[str, User]:
    """The three kinds by name."""
    model: ChatModel = LocalChat(options.user_model or options.model)
    if options.base_url:
        model = Endpoint(options.base_url, options.user_model or "default", api_key_env=options.api_key_env)
    scripted = ScriptedUser()
    played = ModelUser(model, max_tokens=32, max_turns=3, seed=options.seed)
    return {"scripted": scripted, "model": played, "mixed": MixedUser([(0.5, scripted), (0.5, played)])}


def heard(result: EvaluationResult) -> str:
    """The first conversation, and how all of them ended."""
    ended = ", ".join(f"{count} failed by {who}" for who, count in result.failures.items()) or "none failed"
    return f"{len(result.episodes)} conversations scored, {ended}\n{spoken(result.episodes[0])}"


async def llm_user(options: argparse.Namespace) -> None:
    """The whole of it."""
    config = AgentConfig(options.model, system_prompt="You are a shop's assistant. Be brief.", max_new_tokens=32)
    agent = MultiTurnAgent(config)
    for name, user in users(options).items():
        environment = ConversationEnvironment(SCENARIOS, max_turns=3, persona=PERSONA, user=user)
        print(f"\nUser: {name}. {' '.join(environment.notices())}", flush=True)
        if name == options.user and options.episodes:
            await learn(agent, environment, EngagementReward(), options, also=heard)
        else:
            print(heard(await look(agent, environment, EngagementReward(), options)), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; returns the exit code."""
    parser = command_line("llm_user", __doc__, episodes=0, samples=1)
    parser.add_argument("--user", choices=("scripted", "model", "mixed"), default="model", help="whom to train with")
    parser.add_argument("--user-model", help="who plays the user (default: the agent's model, as it is untrained)")
    parser.add_argument(
        "--base-url", help="of an OpenAI-compatible server with that model, as http://127.0.0.1:8000/v1"
    )
    parser.add_argument("--api-key-env", help="name of the environment variable that holds its key")
    return run(llm_user, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
