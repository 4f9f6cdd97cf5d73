"""What is typed in a chat, with the tiny model and with scripted ones; how the program starts and what it refuses."""

import asyncio
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from stateset_agents.agents import MultiTurnAgent, ToolAgent
from stateset_agents.cli import chat as command
from stateset_agents.cli.talk import Talk
from stateset_agents.cli.terminal import Terminal, visible
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.records import read_records
from stateset_agents.core.reward import (
    CompositeReward,
    ConcisenessReward,
    GroupReward,
    HelpfulnessReward,
    RewardFunction,
    RewardResult,
)


def calculator(expression: str) -> str:
    """Compute.

    Args:
        expression: what.
    """
    return f"{expression} is 4"


def talk_of(agent, reward=None, seed=1):
    def none():
        raise ConfigError("there is none")

    asyncio.run(agent.initialize())
    return Talk(agent, none if reward is None else lambda: reward, Terminal(), seed)


def typed(talk, *lines):
    async def all_of_them():
        return [await talk.take(line) for line in lines]

    return asyncio.run(all_of_them())


@pytest.fixture
def hello():
    return MultiTurnAgent.from_model("stub://Hello there.|And again.", system_prompt="Be kind.")


def test_a_reply_is_shown_and_the_conversation_goes_on_from_it(hello, capsys):
    talk = talk_of(hello)
    assert typed(talk, "Hi", "  ", "More") == [True, True, True]
    assert capsys.readouterr().out == "Hello there.\nAnd again.\n"
    assert [(turn.role, turn.content) for turn in talk.turns] == [
        ("user", "Hi"),
        ("assistant", "Hello there."),
        ("user", "More"),
        ("assistant", "And again."),
    ]


def test_the_same_seed_gives_the_same_replies_and_a_reset_gives_others():
    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=6, temperature=1.0)

    def replies(seed):
        talk = talk_of(agent, seed=seed)
        typed(talk, "Hi")
        first = talk.turns[-1].content
        typed(talk, "/reset")
        assert talk.turns == []
        typed(talk, "Hi")
        return first, talk.turns[-1].content

    one = replies(1)
    assert replies(1) == one
    assert one[0] != one[1]
    assert replies(2) != one


CALL = 'Let me see.\n{"name": "calculator", "arguments": {"expression": "2+2"}}'


def test_calls_of_tools_are_folded_to_a_line_each_and_the_reply_follows(capsys, tmp_path):
    agent = ToolAgent.from_model(f"stub://{CALL}|It is 4.", tools=[calculator])
    talk = talk_of(agent)
    typed(talk, "What is 2+2?", f"/save {tmp_path / 'said.jsonl'}")
    shown = capsys.readouterr()
    assert shown.out == "Let me see.\nIt is 4.\n"
    assert '  calculator(expression="2+2") -> 2+2 is 4\n' in shown.err
    (record,) = read_records(tmp_path / "said.jsonl", pairs=False)
    assert record.answers[0] == (
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"name": "calculator", "arguments": {"expression": "2+2"}}],
        },
        {"role": "tool", "content": "2+2 is 4"},
        {"role": "assistant", "content": "It is 4."},
    )


def scribble(expression: str) -> str:
    """Write.

    Args:
        expression: what.
    """
    return "\x1b[2Jx\ny" + "z" * 500


def test_a_long_result_of_a_tool_is_one_line_without_control_characters(capsys):
    agent = ToolAgent.from_model(f"stub://{CALL.replace('calculator', 'scribble')}|Done.", tools=[scribble])
    typed(talk_of(agent), "What?")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "scribble" in line]
    assert line.startswith('  scribble(expression="2+2") -> \u241b[2Jx y')
    assert len(line) == 160


def test_a_reply_moves_no_cursor(capsys):
    talk = talk_of(MultiTurnAgent.from_model("stub://Hi%1b[2J%07"))
    typed(talk, "Hi")
    assert capsys.readouterr().out == "Hi\u241b[2J\u2407\n"
    assert talk.turns[-1].content == "Hi\x1b[2J\x07", "what is saved is what was said"


def test_what_was_saved_is_read_back_and_a_second_conversation_is_added(hello, tmp_path, capsys):
    file = tmp_path / "said.jsonl"
    talk = talk_of(hello)
    typed(talk, "Hi", f"/save {file}", "/reset", "Ho", f"/save {file}")
    one, two = read_records(file, pairs=False)
    assert one.prompt == ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"})
    assert two.prompt[1]["content"] == "Ho"
    assert one.answers == (({"role": "assistant", "content": "Hello there."},),)
    assert f"saved to {file}, which holds 2 conversations" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    ("existing", "words"),
    [
        ("notes of mine\n", "line 1: not valid JSON"),
        ('{"prompt": "a"}\n', "has the unknown key 'prompt'"),
        ('{\n "prompt": 1\n}\n', "and a JSONL file has one object in each line. (and more of the kind)"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_holds_something_else_is_left_as_it_is(hello, tmp_path, capsys, existing, words):
    file = tmp_path / "there" / "notes.txt"
    if existing is not None:
        file.parent.mkdir()
        file.write_text(existing)
    typed(talk_of(hello), "Hi", f"/save {file}")
    told = capsys.readouterr().err
    assert "not saved to" in told
    assert words in told.replace("\n", "")
    assert told.count("\n") <= 2
    assert not file.exists() if existing is None else file.read_text() == existing


def test_a_conversation_that_nobody_can_learn_from_is_not_saved(tmp_path, capsys):
    talk = talk_of(MultiTurnAgent.from_model("stub://%20"))
    typed(talk, "Hi", f"/save {tmp_path / 'x.jsonl'}")
    told = capsys.readouterr().err
    assert "(it said nothing)" in told
    assert "messages[1].content is ' '; it must be text that is not empty" in told
    assert not (tmp_path / "x.jsonl").exists()


class Broken(RewardFunction):
    async def compute_reward(self, turns, context=None):
        raise ZeroDivisionError("by nothing")


class Silent(RewardFunction):
    async def compute_reward(self, turns, context=None):
        return RewardResult(None, metadata={"unscored": "nobody has said what is right"})


class Told(RewardFunction):
    async def compute_reward(self, turns, context=None):
        assert context["system_prompt"] == "Be kind."
        return RewardResult(0.5, turn_rewards=[0.0, 0.5])


class Compares(GroupReward):
    async def compare(self, conversations, context=None):
        raise AssertionError("it has nothing to compare")


def test_the_reward_is_shown_with_its_parts(hello, capsys):
    reward = CompositeReward([HelpfulnessReward(weight=0.75), ConcisenessReward(weight=0.25)])
    talk = talk_of(hello, reward)
    typed(talk, "Hi")
    capsys.readouterr()
    typed(talk, "/reward")
    result = asyncio.run(reward.evaluate(talk.turns))
    parts = {name: part.score for name, part in result.components.items()}
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"reward {result.score:.3f}",
        f"  helpfulness  {parts['helpfulness']:.3f}  x 0.75",
        f"  conciseness  {parts['conciseness']:.3f}  x 0.25",
    ]


def test_the_reward_knows_the_system_prompt_and_says_what_each_turn_earned(hello, capsys):
    typed(talk_of(hello, Told()), "Hi", "Ho", "/reward")
    assert capsys.readouterr().out.endswith("reward 0.500\n  by turn: 0.000  0.500\n")


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (None, "no reward: config error: there is none"),
        (Broken(), "ZeroDivisionError: by nothing"),
        (Silent(), "no reward: nobody has said what is right"),
        (Compares(), "no reward: compares compares conversations, and this is one by itself"),
    ],
)
def test_where_there_is_no_reward_it_says_why_and_the_conversation_goes_on(hello, reward, words, capsys):
    talk = talk_of(hello, reward)
    assert typed(talk, "/reward", "Hi", "/reward", "Ho") == [True] * 4
    told = capsys.readouterr().err
    assert "there is nothing to judge yet" in told
    assert words in told
    assert len(talk.turns) == 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/rewrd", "there is no command /rewrd; did you mean /reward? A message may begin with //"),
        ("/xyz", "there is no command /xyz; /help lists them all"),
        ("/", "there is no command /; /help lists them all"),
        ("/save", "/save needs a file"),
        ("/save x", "there is nothing to save yet"),
        ("/reset now", "/reset takes nothing, and was given 'now'"),
        ("/quit please", "/quit takes nothing, and was given 'please'"),
    ],
)
def test_a_command_that_is_none_is_told(hello, line, words, capsys):
    talk = talk_of(hello)
    assert typed(talk, line) == [True]
    assert words in capsys.readouterr().err
    assert talk.turns == []


def test_a_message_may_begin_with_a_slash_and_help_lists_every_command(hello, capsys):
    talk = talk_of(hello)
    typed(talk, "//help me", "/help")
    assert talk.turns[0].content == "/help me"
    out = capsys.readouterr().out
    for word in ("/help", "/reward", "/save FILE", "/reset", "/quit", "Ctrl-C"):
        assert word in out
    assert typed(talk, "/quit") == [False]


def test_a_message_that_does_not_fit_is_taken_back():
    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=4)
    talk = talk_of(agent)
    typed(talk, "Hi", "x" * 20_000)
    assert [turn.role for turn in talk.turns] == ["user", "assistant"]


def test_a_reply_that_is_stopped_leaves_the_conversation_as_it_was(hello):
    talk = talk_of(hello)
    typed(talk, "Hi")

    async def stopped():
        reply = asyncio.create_task(talk.take("More"))
        await asyncio.sleep(0)
        reply.cancel()
        await asyncio.gather(reply, return_exceptions=True)

    asyncio.run(stopped())
    assert len(talk.turns) == 2
    typed(talk, "More")
    assert talk.turns[-1].content == "And again."


@pytest.mark.parametrize("overridden", [False, True])
def test_after_a_reply_that_was_stopped_the_next_one_is_what_the_seed_says(overridden):
    class Own(MultiTurnAgent):
        async def process_turn(self, history, user_input, context=None):
            return await super().process_turn(history, user_input, context)

    agent = (Own if overridden else MultiTurnAgent).from_model("tiny", max_new_tokens=6, temperature=1.0)

    def second(*, stopping):
        talk = talk_of(agent)
        typed(talk, "Hi")

        async def stopped():
            reply = asyncio.create_task(talk.take("More"))
            await asyncio.sleep(0.005)
            reply.cancel()
            await asyncio.gather(reply, return_exceptions=True)

        if stopping:
            asyncio.run(stopped())
            assert len(talk.turns) == 2
        typed(talk, "More")
        return talk.turns[-1].content

    assert second(stopping=True) == second(stopping=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, two\n\tlines", "plain, two\n\tlines"),
        ("\x1b[31mred\x07\r\x7f", "\u241b[31mred\u2407\u240d\u2421"),
        ("\x9b2J\u202eevil\ud800", "\\u{9b}2J\\u{202e}evil\\u{d800}"),
        ("caf\u00e9 \u3000 \U0001f469\u200d\U0001f469", "caf\u00e9 \u3000 \U0001f469\u200d\U0001f469"),
    ],
)
def test_text_of_a_model_is_only_text(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "Missing argument 'CHECKPOINT_PATH'"),
        (["nowhere"], 3, "checkpoint error: there is no checkpoint nowhere: no such folder"),
        (["stub://a", "--config-file", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["stub://a", "--temperature", "-1"], 2, "temperature is -1.0; it must be a number >= 0"),
        (["stub://a", "--temperature", "warm"], 2, "'--temperature': Input should be a valid number"),
        (["stub://a", "--max-new-tokens", "0"], 2, "max_new_tokens is 0; it must be a whole number >= 1"),
        (["stub://a", "--sede", "1"], 2, "No such option"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_loaded(tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(command.app, arguments, prog_name="grpo-chat")
    assert ended.exit_code == code, ended.output
    assert words in ended.output


def test_help_and_version_load_neither_torch_nor_the_reader_of_checkpoints():
    code = (
        "import sys\nfrom stateset_agents.cli.chat import app\n"
        "try:\n    app([sys.argv[1]], prog_name='grpo-chat')\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'transformers', 'fastapi'} & set(sys.modules)"
    )
    for flag in ("--help", "--version"):
        ended = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr


def test_piped_lines_are_answered_and_only_replies_and_results_go_to_standard_output(tmp_path):
    lines = "Hi\n/help\n/save said.jsonl\nMore\n"
    ended = subprocess.run(
        [sys.executable, "-m", "stateset_agents.cli.chat", "stub://Hello there.|And again.", "--seed", "3"],
        input=lines.encode() + b"caf\xe9\n",
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    out = ended.stdout.decode()
    assert out.startswith("Hello there.\n/help")
    assert out.endswith("Ctrl-C stops a reply\nAnd again.\nHello there.\n")
    assert "you> " not in out
    assert "seed 3; /help lists what can be typed" in ended.stderr.decode()
    assert json.loads((tmp_path / "said.jsonl").read_text())["messages"][-1]["content"] == "Hello there."


@pytest.mark.parametrize(
    ("lines", "code"),
    [("Hi\n/save nowhere/x\nMore\n", 3), ("/rewrd\nMore\n/save nowhere/x\n", 2), ("Hi\n/reward\nMore\n", 2)],
)
def test_a_pipe_with_a_command_that_could_not_be_done_goes_on_and_ends_with_its_code(lines, code, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "stateset_agents.cli.chat", "stub://Hello there."],
        input=lines.encode(),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout.decode().endswith("Hello there.\n")


class Faulty(MultiTurnAgent):
    async def process_turn(self, history, user_input, context=None):
        raise ZeroDivisionError("by nothing")


@pytest.mark.parametrize("interactive", [True, False])
def test_whoever_types_may_go_on_after_code_that_fails_and_a_pipe_may_not(interactive, capsys):
    talk, terminal = talk_of(Faulty.from_model("stub://Hello")), Terminal()
    terminal.interactive = interactive
    with asyncio.Runner() as runner:
        if not interactive:
            with pytest.raises(ZeroDivisionError):
                command._taken(runner, talk, "Hi", terminal)
            return
        assert command._taken(runner, talk, "Hi", terminal) is True
    told = capsys.readouterr().err
    assert "ZeroDivisionError: by nothing" in told
    assert "your message is taken back" in told
    assert talk.turns == []
