"""Talking to what a run has trained: at a real terminal, with keys that are pressed, and through a pipe."""

import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are those of Unix"),
]
AS_INSTALLED = "import sys; sys.argv[0] = 'grpo-chat'; from stateset_agents.cli.chat import main; main()"
CHAT = [sys.executable, "-c", AS_INSTALLED]


class AtTheTerminal:
    """The program with a terminal of its own."""

    def __init__(self, folder, *arguments):
        self.shown = ""
        pid, self._fd = pty.fork()
        if pid == 0:
            os.chdir(folder)
            os.execv(CHAT[0], [*CHAT, *arguments])  # noqa: S606 - the program itself, at its own terminal
        self.pid = pid

    def press(self, keys):
        os.write(self._fd, keys.encode())

    def until(self, words, seconds=60):
        """What is shown up to these words, after what was looked at before."""
        end = time.monotonic() + seconds
        while not (found := re.search(words, self.shown)):
            assert time.monotonic() < end, self.shown
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._fd, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it ended: {self.shown}") from None
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def code(self):
        try:
            while os.read(self._fd, 65536):
                pass
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def trained(work):
    assert work.train("--num-episodes", "8").code == 0
    return work


def test_a_conversation_at_a_terminal(trained):
    at = AtTheTerminal(trained.path, "outputs", "--seed", "1", "--max-new-tokens", "1500")
    assert "outputs/final_model, step 2" in at.until("you> ")
    at.press("Hi\n")
    at.until("Hi\r\n.")  # the reply has begun
    at.press("\x03")
    stopped = at.until("you> ")
    assert "stopped: your message is taken back" in stopped
    assert "Traceback" not in stopped
    at.press("half a line\x03")
    assert "Ctrl-D or /quit ends" in at.until("you> $")
    at.press("/reward\n")
    assert "there is nothing to judge yet" in at.until("you> $")
    at.press("/save x\n")
    at.until("you> $")
    at.press("\x1b[A\x1b[A\n")  # up, twice: the prompt remembers what was typed
    assert "there is nothing to judge yet" in at.until("you> $")
    at.press("\x04")
    assert at.code() == 0


def piped(work, lines, *arguments):
    return subprocess.run(
        [*CHAT, *arguments, "--seed", "1"], input=lines, cwd=work.path, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("place", ["outputs", "outputs/checkpoints/step-2", "outputs/final_model"])
def test_every_place_of_a_run_can_be_talked_to(trained, place):
    ended = piped(trained, "Hi\n/reward\n", place)
    assert ended.returncode == 2, ended.stderr  # of the command that failed; the others were done
    assert ended.stdout.strip()
    assert "my_rewards.vowels" in ended.stderr
    assert f"grpo-chat {place} --seed 1 --config-file {trained.path / 'run.json'}" in ended.stderr, (
        "code of one's own is run only because one names it"
    )


def test_the_runs_reward_and_the_data_file_go_round(trained):
    ended = piped(trained, "Hi\n/reward\n/save said.jsonl\n", "outputs", "--config-file", "run.json")
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^reward 0\.\d{3}$", ended.stdout, re.MULTILINE)
    trained.write(
        "learn.json", training__data_file="said.jsonl", training__algorithm="sft", training__num_episodes=4,
        training__num_generations=None, rewards=None,
    )  # fmt: skip
    learned = trained.train("--output-dir", "learned", config="learn.json")
    assert learned.code == 0, learned.err
