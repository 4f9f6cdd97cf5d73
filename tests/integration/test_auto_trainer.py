"""`AutoTrainer` looks, chooses with reasons, trains, and does the same again when it is resumed."""

import json

import pytest

from stateset_agents import ConversationEnvironment, MultiTurnAgent
from stateset_agents.core.errors import ConfigError, RunFolderError
from stateset_agents.core.reward import GroupReward
from stateset_agents.training.callbacks import Callback
from stateset_agents.training.chosen import Chosen
from stateset_agents.training.train import AutoTrainer


async def vowels(turns, context=None):
    text = "".join(turn.content for turn in turns if turn.role == "assistant")
    return sum(letter in "aeiou" for letter in text) / (1 + len(text))


def agent(**settings):
    common = {"max_new_tokens": 6, "dtype": "float32", "device": "cpu"}
    return MultiTurnAgent.from_model("tiny", **{**common, **settings})


def environment():
    return ConversationEnvironment([{"id": "a", "user_responses": ["Hi!"]}, {"id": "b", "user_responses": ["How?"]}])


SMALL = {"batch_size": 8, "gradient_accumulation_steps": 1, "num_generations": 4, "mixed_precision": False}


class Crash(Callback):
    def on_step_end(self, metrics):
        if metrics["step"] == 1:
            raise KeyboardInterrupt


async def test_choices_are_told_at_the_beginning_in_the_report_and_kept(tmp_path, capsys):
    """Mutation: the agent's own settings are not changed; `chosen` does not reach the report."""
    own = agent(temperature=0.01)
    trained = await AutoTrainer(patience=8).train(
        agent=own, environment=environment(), num_episodes=8, reward_fn=vowels, config_overrides=SMALL,
        output_dir=tmp_path / "run",
    )  # fmt: skip
    assert trained is own
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert "analysis: 8 conversations before training: mean reward 0." in text
        assert "chosen: temperature 1.0: at 0.01 all conversations of 100% of the groups are the same" in text
        assert "chosen: learning_rate 0.001: the model has 0.107 million parameters" in text
        assert "chosen: batch_size" not in text  # it was given
    assert (own.config.temperature, own.config.max_new_tokens) == (1.0, 12)
    kept = json.loads((tmp_path / "run" / "auto_trainer.json").read_text())
    assert [one["name"] for one in kept["choices"]] == ["profile", "learning_rate", "temperature", "max_new_tokens"]
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "auto_adjust: true" in config
    assert "early_stopping: true" in config


async def test_what_the_run_would_refuse_is_refused_before_the_look(tmp_path, monkeypatch):
    """Mutation: the folder, or what alerts need, is asked for once the task was looked at."""

    async def looked(*_, **__):
        raise AssertionError("it was looked at")

    monkeypatch.setattr(Chosen, "by_looking", looked)
    (tmp_path / "config.yaml").write_text("mine")
    with pytest.raises(RunFolderError, match="which this run would overwrite"):
        await AutoTrainer().train(agent(), environment(), 8, reward_fn=vowels, output_dir=tmp_path)
    alerts = {"webhook_env": "NO_WEBHOOK"}
    with pytest.raises(ConfigError, match="NO_WEBHOOK"):
        await AutoTrainer().train(agent(), environment(), 8, reward_fn=vowels, output_dir=tmp_path / "a", alerts=alerts)
    assert not (tmp_path / "a").exists()


async def test_a_resumed_run_takes_its_choices_from_the_folder(tmp_path, monkeypatch):
    """Mutation: a resumed run looks again, at an agent that may be trained by then."""

    async def run(folder, **options):
        await AutoTrainer(early_stopping=False).train(
            agent(), environment(), 16, reward_fn=vowels, output_dir=folder, quiet=True,
            config_overrides={**SMALL, "eval_every": 0, "save_every": 8}, **options,
        )  # fmt: skip
        return (folder / "final_model" / "model.safetensors").read_bytes()

    whole = await run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        await run(tmp_path / "parts", callbacks=[Crash()])
    kept = tmp_path / "parts" / "auto_trainer.json"
    text = kept.read_text()
    kept.write_text("{}")
    with pytest.raises(RunFolderError, match=r"auto_trainer\.json does not hold what AutoTrainer chose"):
        await run(tmp_path / "parts", resume=True)
    kept.write_text(text)
    monkeypatch.setattr("stateset_agents.training.chosen.look", None)
    assert await run(tmp_path / "parts", resume=True) == whole


async def test_a_reward_that_compares_switches_early_stopping_off_and_says_why(capsys):
    class Longest(GroupReward):
        async def compare(self, conversations, context=None):
            return [float(len(turns[-1].content)) for turns in conversations]

    await AutoTrainer().train(agent(), environment(), 8, reward_fn=Longest(), config_overrides=SMALL)
    assert "chosen: early_stopping False: the reward compares conversations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AutoTrainer(patience=0), "patience"),
        (lambda: AutoTrainer(auto_adjust="perhaps"), "auto_adjust"),
    ],
)
def test_what_is_wrong_is_refused_when_it_is_made(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"agent": "tiny"}, "pass a MultiTurnAgent"),
        ({"environment": []}, "pass an Environment"),
        ({"config_overrides": {"learnin_rate": 1}}, "did you mean"),
        ({"config_overrides": {"patience": 3}}, "patience is 50 as an argument and 3 in config_overrides"),
    ],
)
async def test_what_is_wrong_is_refused_before_anything_is_played(arguments, words):
    given = {"agent": agent(), "environment": environment(), **arguments}
    with pytest.raises(ConfigError, match=words):
        await AutoTrainer().train(**given, quiet=True)
