"""`kill -9` between and during turns: what was acknowledged is there, and what was not is there once or not at all."""

import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Queue

import pytest

from postgres_server import fresh_postgres, postgres

__all__ = ["fresh_postgres", "postgres"]

PROGRAM = Path(__file__).parents[1] / "piped_service.py"
TALKS = 6
"""Conversations at once."""


class PipedService:
    """A service in a process of its own; results come in whatever order they are ready."""

    def __init__(self, kind, where):
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), kind, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.interrupted = json.loads(self._process.stdout.readline())["interrupted"]
        self._waiting: dict[int, Queue] = {}
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def send(self, *call):
        number = len(self._waiting)
        self._waiting[number] = Queue()
        self._process.stdin.write(json.dumps([number, *call]) + "\n")
        self._process.stdin.flush()
        return self._waiting[number]

    def ask(self, *call):
        """The result, asked for until it is no matter of waiting."""
        while (answer := self.send(*call).get(timeout=20)).get("error") == "turn-running":
            time.sleep(0.05)
        return answer["result"]

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()
        self._process.stdout.close()

    def _read(self):
        for line in self._process.stdout:
            if line.endswith("\n"):  # the last one may be torn
                answer = json.loads(line)
                self._waiting[answer["number"]].put(answer)


class Talk:
    """What a client knows of one conversation."""

    def __init__(self, id_):
        self.id = id_
        self.said = []
        self.sent = None  # the message that is not answered
        self.count = 0
        self.answer = None

    def send(self, service):
        self.count += 1
        self.sent = f"message {self.count}"
        self.answer = service.send("turn", self.id, self.sent, self.sent)

    def collect(self):
        """Take in the reply if it was acknowledged."""
        if self.sent is not None and not self.answer.empty():
            self.hear(self.answer.get()["result"])

    def hear(self, reply):
        assert reply["response"] == f"{len(self.said)}: {self.sent}"
        assert reply["turn_count"] == 2 + len(self.said) // 2
        self.said += [self.sent, reply["response"]]
        self.sent = None

    def check(self, history):
        turns = [turn["content"] for turn in history["turns"]][1:]
        assert [turn["role"] for turn in history["turns"]] == ["assistant", *["user", "assistant"] * (len(turns) // 2)]
        unheard = [] if self.sent is None else [self.sent, f"{len(self.said)}: {self.sent}"]
        assert turns in (self.said, self.said + unheard)
        return len(history.get("interrupted", []))


def marks(service, talks):
    return sum(talk.check(service.ask("history", talk.id)) for talk in talks)


def kill_many_times(kind, where, times, seed):
    chance = random.Random(seed)
    talks, marked = [], 0
    for round_ in range(times + 1):
        service = PipedService(kind, where)
        try:
            before = marks(service, talks)
            if kind == "sqlite":
                assert before == marked + service.interrupted
            for talk in talks:
                if talk.sent is not None:  # sent again with its key: once in the history, whatever had become of it
                    talk.hear(service.ask("turn", talk.id, talk.sent, talk.sent))
            marked = marks(service, talks)
            while len(talks) < TALKS:
                talks.append(Talk(service.ask("start")["conversation_id"]))
            if round_ == times:
                break
            for _ in range(3):
                for talk in talks:
                    if talk.sent is None:
                        talk.send(service)
                if round_ % 4 == 3:  # between turns
                    for talk in talks:
                        talk.hear(talk.answer.get(timeout=20)["result"])
                else:
                    time.sleep(chance.uniform(0, 0.06))
                    for talk in talks:
                        talk.collect()
        finally:
            service.kill()
        for talk in talks:
            talk.collect()
    assert marked > 0
    assert sum(len(talk.said) for talk in talks) > 2 * times


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path):
    kill_many_times("sqlite", str(tmp_path / "conversations.sqlite"), 6, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_when_the_server_is_killed_fifty_times(tmp_path):
    kill_many_times("sqlite", str(tmp_path / "conversations.sqlite"), 50, seed=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_with_postgres(fresh_postgres):
    kill_many_times("postgres", fresh_postgres.address, 12, seed=3)
