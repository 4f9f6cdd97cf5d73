"""How an example ends, and which numbers its command line takes."""

import pytest

from stateset_agents.core.errors import ModelError
from stateset_agents.examples.program import command_line, run


@pytest.fixture
def options():
    return command_line("quick_start", "What it teaches.", episodes=3).parse_args([])


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [(ModelError("there is no model"), 3, "there is no model\n"), (KeyboardInterrupt(), 75, "interrupted\n")],
)
def test_an_end_that_is_meant_for_the_user_is_a_text_and_a_code(error, code, told, options, capsys):
    async def program(given):
        raise error

    assert run(program, options) == code
    assert capsys.readouterr().err == told


def test_a_bug_keeps_its_traceback(options):
    async def program(given):
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        run(program, options)


@pytest.mark.parametrize("wrong", [["--samples", "0"], ["--episodes", "-1"], ["--seed", "-1"], ["--episodes", "x"]])
def test_a_number_that_cannot_be_is_refused(wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        command_line("quick_start", "What it teaches.", episodes=3).parse_args(wrong)
    assert wrong[0] in capsys.readouterr().err
