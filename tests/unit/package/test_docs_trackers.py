"""docs/trackers.md: its configs load, its tables are true of the code, and its tracker works."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

from stateset_agents.config import LoggingSection
from stateset_agents.tracking.sinks import Sinks, choice, chosen_sinks, delivery

PAGE = (Path(__file__).parents[3] / "docs" / "trackers.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def diary(monkeypatch):
    """The page's class, registered as the page registers it."""
    space: dict = {}
    exec(blocks("python")[0], space)  # noqa: S102 - the page's own program
    name, value = re.search(r'(\w+) = "(\S+)"', blocks("toml")[0]).groups()
    point = EntryPoint(name, value, choice.GROUP)
    assert f'entry-points."{choice.GROUP}"' in blocks("toml")[0]
    monkeypatch.setattr(choice, "entry_points", lambda group: [point])
    monkeypatch.setattr(EntryPoint, "load", lambda self: space["Diary"])


def test_the_configs_of_the_page_choose_what_they_name(diary, tmp_path):
    first, own = (LoggingSection.model_validate(yaml.safe_load(block)["logging"]) for block in blocks("yaml"))
    names = [sink.name for sink in chosen_sinks(first, tmp_path)]
    assert sorted(names) == ["mlflow", "tensorboard", "trackio", "wandb"]
    assert [sink.name for sink in chosen_sinks(own, tmp_path)] == ["diary"]


def test_the_tracker_of_the_page_gets_every_step(diary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = LoggingSection.model_validate(yaml.safe_load(blocks("yaml")[1])["logging"])
    sinks = Sinks(chosen_sinks(section, tmp_path))
    sinks.start(tmp_path, {})
    for step in (1, 2):
        sinks.log({"step": step, "reward_mean": step / 4})
    sinks.close()
    assert sinks.failures == {"diary": 0}
    assert (tmp_path / "diary.txt").read_text() == "1 0.25\n2 0.5\n"


def test_the_numbers_of_the_page_are_those_of_the_code():
    assert f"a queue of {delivery.MOST_WAITING} rows" in PAGE
    assert delivery.CLOSE_SECONDS == 60, "a minute, says the page"
