"""Runs the Python blocks of the TRL training guide, one after the other, as a reader would type them into one session.

Arguments: a JSON file with the blocks, and a model name. Runs are capped at one step of 16 conversations with short
replies; what the guide leaves out (`...`, the training data) is filled in. Prints one JSON object.
"""

import ast
import asyncio
import inspect
import json
import sys
from pathlib import Path

import stateset_agents
import stateset_agents.training.trl.customer_service as customer_service
from stateset_agents.core.reward import HelpfulnessReward, SafetyReward
from stateset_agents.training import TRLGRPOConfig, train_with_trl_grpo

blocks = json.loads(Path(sys.argv[1]).read_text())
model = sys.argv[2]

FILLED_IN = {
    "openai/gpt-oss-120b": model,
    "num_episodes=1000": "num_episodes=16",
    "num_episodes=1500": "num_episodes=16",
    "max_completion_length=256": "max_completion_length=8",
    "ConversationEnvironment(...)": "ConversationEnvironment(scenarios=SCENARIOS)",
    "MultiObjectiveReward(...)": "MultiObjectiveReward(REWARDS)",
}


def with_short_replies(**settings):
    return TRLGRPOConfig(**{"max_completion_length": 8, **settings})


customer_service.TRLGRPOConfig = with_short_replies

names = {
    "__name__": "__main__",
    "SCENARIOS": [{"user_responses": ["Where is my order?", "And when does it come?"]}],
    "REWARDS": [HelpfulnessReward(0.7), SafetyReward(0.3)],
    "my_training_data": None,
    "TRLGRPOConfig": TRLGRPOConfig,
}


def run(block):
    for shown, meant in FILLED_IN.items():
        block = block.replace(shown, meant)
    code = compile(block, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, names)  # noqa: S307 - the programs of the guide
    if inspect.isawaitable(running):
        asyncio.run(running)


*programs, results = blocks
configs = []
for block in programs:
    run(block)
    if isinstance(names.get("config"), TRLGRPOConfig):
        configs.append(names["config"].model_dump(exclude_unset=True))

# What the last program loads is where a config without an output_dir leaves its model; the guide's own data trains it.
config = TRLGRPOConfig(model_name=model, num_episodes=16, max_completion_length=8)
environment, reward = names["environment"], names["reward_model"]
names["training_data"].append({"messages": [{"role": "user", "content": "Help me"}]})
asyncio.run(
    train_with_trl_grpo(
        config=config,
        agent=stateset_agents.MultiTurnAgent.from_model(model),
        environment=environment,
        reward_model=reward,
        train_data=names["training_data"],
    )
)
run(results)

print("RESULT " + json.dumps({"package": stateset_agents.__file__, "configs": configs, "response": names["response"]}))
