"""Runs the Python blocks of a document, one after the other, as a reader would type them into one session.

Arguments: a JSON file with the blocks, a model name, and a bound for the length of replies. Training is capped at two
groups. Prints one JSON object: what was trained, and what the blocks leave in the name `told`.
"""

import ast
import asyncio
import inspect
import json
import sys
from pathlib import Path

import stateset_agents.training.train as training
from stateset_agents.config.training import TrainingConfig

blocks = json.loads(Path(sys.argv[1]).read_text())
model, longest = sys.argv[2], int(sys.argv[3])
trained = []
train_for_real = training.train


async def train_two_groups(*arguments, **named):
    call = inspect.signature(train_for_real).bind(*arguments, **named)
    given = call.arguments
    overrides = dict(given.get("config_overrides") or {})
    config = TrainingConfig.from_profile(given.get("profile", "balanced"), **overrides)
    episodes = 2 * config.num_generations
    overrides["gradient_accumulation_steps"] = max(1, episodes // config.batch_size)
    given |= {"num_episodes": episodes, "config_overrides": overrides}
    agent = given["agent"]
    agent.config.max_new_tokens = min(agent.config.max_new_tokens, longest)
    trained.append([type(agent).__name__, type(given["environment"]).__name__, config.profile, episodes])
    return await train_for_real(*call.args, **call.kwargs)


training.train = train_two_groups

names = {"__name__": "__main__"}
for block in blocks:
    code = compile(block.replace("openai/gpt-oss-120b", model), "<block>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, names)  # noqa: S307 - the programs of our own guide
    if running is not None:
        asyncio.run(running)

print("RESULT " + json.dumps({"package": training.__file__, "trained": trained, "told": names.get("told")}))
