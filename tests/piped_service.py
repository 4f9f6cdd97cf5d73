"""The service over a pipe: requests come in as JSON lines and are answered as they are done, so that it can be killed.

    python piped_service.py sqlite PATH | postgres ADDRESS

Its agent repeats what the user said, a piece at a time.
"""

import asyncio
import json
import sys

from stateset_agents.agents import Agent
from stateset_agents.api import Conversations, PostgresStore, ServeError, ServeLimits, SqliteStore
from stateset_agents.core.trajectory import ConversationTurn

PIECES, PAUSE = 10, 0.002


class Repeating(Agent):
    async def process_turn(self, history, user_input, context=None):
        return ConversationTurn("assistant", f"{len(history)}: {user_input}")

    async def stream_turn(self, history, user_input, context=None):
        for _ in range(PIECES):
            await asyncio.sleep(PAUSE)
            yield "."
        yield await self.process_turn(history, user_input, context)


async def main(kind, where):
    store = SqliteStore(where) if kind == "sqlite" else PostgresStore(where)
    service = Conversations(Repeating(), store, ServeLimits(max_conversations=1000, max_running=8))
    answer({"interrupted": await service.open()})
    calls = {
        "start": lambda: service.start(owner="me"),
        "turn": lambda conversation, message, key: service.turn(conversation, message, "me", key),
        "history": lambda conversation: service.history(conversation, "me"),
    }

    async def handle(number, call, *arguments):
        try:
            answer({"number": number, "result": (await calls[call](*arguments)).to_dict()})
        except ServeError as error:
            answer({"number": number, "error": error.slug})

    tasks = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        tasks.add(asyncio.create_task(handle(*json.loads(line))))


def answer(value):
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
