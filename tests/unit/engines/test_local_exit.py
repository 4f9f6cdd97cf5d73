from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio
from stateset_agents import MultiTurnAgent

async def main():
    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=400)
    await agent.initialize()
    for _ in range(40):
        asyncio.create_task(agent.generate_response([{"role": "user", "content": "Hello"}]))
    await asyncio.sleep(0.1)
    raise SystemExit(3)

asyncio.run(main())
"""


def test_a_program_that_ends_while_replies_are_under_way_keeps_its_exit_code() -> None:
    """Without the engine's exit hook the process aborts (134) in most of the runs."""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (3, "")
