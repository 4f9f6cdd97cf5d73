"""The self-test of the first updates: what must hold is broken, and the run stops with the right sentence."""

from __future__ import annotations

import logging

import pytest
import torch

from stateset_agents import train
from stateset_agents.agents import AgentRuntime, MultiTurnAgent
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.errors import TrainingStopped
from stateset_agents.core.reward import RewardFunction, RewardResult
from stateset_agents.engines.local import LocalEngine
from stateset_agents.models import load_model
from stateset_agents.tracking.run_folder import RunFolder
from stateset_agents.training import step_bound
from stateset_agents.training.learner import Learner
from stateset_agents.training.parts import RunParts
from stateset_agents.training.policy_model import PolicyModel
from stateset_agents.training.trainer import Trainer
from stateset_agents.training.weight_check import WeightCheck, checksum

SCENARIOS = [
    {"id": "plans", "user_responses": ["Hello, what does the basic plan cost?", "And for a year?"]},
    {"id": "returns", "user_responses": ["Can I return it within a month?", "Thanks."]},
]
SMALL = {
    "num_generations": 4,
    "batch_size": 8,
    "gradient_accumulation_steps": 1,
    "learning_rate": 2e-3,
    "warmup_steps": 0,
    "eval_every": 0,
    "save_every": 0,
    "mixed_precision": False,
}


class Vowels(RewardFunction):
    """The share of vowels."""

    async def compute_reward(self, turns, context=None):
        text = "".join(turn.content for turn in turns if turn.role == "assistant")
        return RewardResult(sum(letter in "aeiou" for letter in text) / (1 + len(text)))


async def started(*, steps=3, folder=None, kind=MultiTurnAgent, **settings):
    """A prepared run."""
    agent = kind.from_model(
        "tiny", system_prompt="Be brief.", max_new_tokens=12, dtype="float32", device="cpu", temperature=0.7
    )
    config = TrainingConfig.from_profile("balanced", **{**SMALL, "num_episodes": 8 * steps, **settings})
    trainer = Trainer(agent, ConversationEnvironment(SCENARIOS, max_turns=2), Vowels(), config, RunParts(folder))
    await agent.initialize()
    await trainer.prepare()
    return trainer


async def stopped(trainer, match):
    """Run it to its refusal; nothing of the step was kept."""
    with pytest.raises(TrainingStopped, match=match) as caught:
        await trainer.run()
    await trainer.agent.aclose()
    assert caught.value.exit_code == 4
    return str(caught.value)


def told(caplog):
    return [line for record in caplog.records if (line := record.getMessage()).startswith("self-test: ")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "ratio 1, gradient in 20 of 20 weights, 20 of them moved"),
        ({"beta": 0.04}, "ratio 1, KL 0, gradient in 20 of 20 weights, 20 of them moved and none of 20 frozen ones"),
        # the second matrices are 0 at first, so the first ones have no gradient
        (
            {"beta": 0.04, "lora": {"r": 4}},
            "ratio 1, KL 0, gradient in 14 of 28 weights, 14 of them moved and none of 20 frozen ones",
        ),
        ({"algorithm": "ppo", "beta": 0.04}, "KL 0, "),
        ({"algorithm": "trpo"}, "of them moved"),
        ({"algorithm": "dpo"}, "KL 0, "),
        ({"num_iterations": 2}, "ratio 1, gradient in 20 of 20"),
    ],
)
async def test_what_holds_is_said_in_one_line_and_the_mask_is_shown(tmp_path, caplog, settings, words):
    caplog.set_level(logging.INFO)
    with RunFolder.create(tmp_path / "run", config_yaml="") as folder:
        trainer = await started(steps=2, folder=folder, **settings)
        await trainer.run()
        await trainer.agent.aclose()
    first, second = told(caplog)
    assert words in first
    assert "log-probs of sampler and learner" in first
    assert "gradient" not in second
    text = (tmp_path / "run" / "self_test.txt").read_text()
    assert text.splitlines()[0].startswith("the first conversation of the run as it is trained (")
    marks = [line.split()[:2] for line in text.splitlines()[1:]]
    assert marks[:4] == [["read", "prompt+user"], ["trained", "assistant"], ["read", "user"], ["trained", "assistant"]]
    assert "Be brief" in text


async def test_a_sampler_with_old_weights_is_found_at_the_second_update():
    class Stale(LocalEngine):
        """Hears of no new weights."""

        def weights_changed(self, version):
            pass

    trainer = await started()
    whole = trainer.agent.runtime
    trainer.agent.runtime = AgentRuntime(whole.model, whole.codec, Stale(whole.model))
    trainer._engine = trainer.agent.runtime.engine
    text = await stopped(trainer, r"sampled with weights of version 0, and those of version 1 are trained")
    assert "the sampler has old weights" in text
    assert len(trainer.rows) == 1


async def test_a_sampler_with_weights_of_its_own_is_found_at_the_second_update():
    trainer = await started(learning_rate=5e-3)
    whole = trainer.agent.runtime
    own = load_model("tiny", dtype="float32", device="cpu")
    trainer.agent.runtime = AgentRuntime(whole.model, whole.codec, LocalEngine(own))
    trainer._engine = trainer.agent.runtime.engine
    await stopped(trainer, "the sampler has not got the new weights")
    assert len(trainer.rows) == 1


async def test_another_temperature_in_the_learner_stops_the_run_before_its_first_update():
    trainer = await started()
    trainer.learner.policy.temperature = 1.0
    before = {name: weight.clone() for name, weight in trainer.learner.weights.state().items()}
    text = await stopped(trainer, "the self-test of the first update failed: sampler and learner disagree")
    assert "Nothing of this step was saved." in text
    assert "compare the temperatures (the learner's is 1)" in text
    assert trainer.rows == []
    assert all(torch.equal(before[name], weight) for name, weight in trainer.learner.weights.state().items())


class Shifting(MultiTurnAgent):
    """Its mask lies one token too early."""

    async def process_turn(self, *arguments, **options):
        turn = await super().process_turn(*arguments, **options)
        row = turn.span.row
        row.mask[turn.span.start - 1 : turn.span.end] = [*row.mask[turn.span.start : turn.span.end], 0]
        return turn


async def test_a_shifted_mask_stops_the_run_and_can_be_seen(tmp_path):
    with RunFolder.create(tmp_path / "run", config_yaml="") as folder:
        trainer = await started(folder=folder, kind=Shifting)
        await stopped(trainer, "the mask marks tokens that nobody sampled")
        lines = (tmp_path / "run" / "self_test.txt").read_text().splitlines()
        assert lines[2].split()[:3] == ["trained", "prompt+user", "1"]  # the last token of the prompt


async def test_frozen_weights_that_are_meant_to_be_trained_stop_the_run():
    trainer = await started()
    groups = trainer.learner.optimizer.param_groups
    groups[0]["params"] = groups[0]["params"][5:]
    await stopped(trainer, r"5 of 20 trainable weights have a gradient and did not move \(model\.embed_tokens")
    assert trainer.rows == []


async def test_a_model_that_is_detached_on_the_way_stops_the_run(monkeypatch):
    trainer = await started()
    layer = trainer.agent.runtime.model.model.model.layers[1]
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0].detach(), *inputs[1:]))
    text = await stopped(trainer, r"\d+ of 20 trainable weights have no gradient")
    assert "model.layers.0.self_attn.q_proj.weight" in text


async def test_a_loss_without_a_gradient_stops_the_run(monkeypatch):
    trainer = await started()
    true = Learner._gradient

    def without(self, *arguments):
        measured = true(self, *arguments)
        for master in self.weights.masters:
            master.grad.zero_()
        return measured

    monkeypatch.setattr(Learner, "_gradient", without)
    await stopped(trainer, "the gradient is 0 in every weight, although the rewards differ")


async def test_frozen_weights_that_move_stop_the_run(monkeypatch):
    trainer = await started(lora={"r": 4})
    (base, *_) = [p for p in trainer.agent.runtime.model.model.parameters() if not p.requires_grad]
    true = Learner._update

    def careless(self, rate):
        with torch.no_grad():
            base[3, 7] += 1e-3
        return true(self, rate)

    monkeypatch.setattr(Learner, "_update", careless)
    await stopped(trainer, r"1 of \d+ frozen weights moved \(model\.embed_tokens\.weight\)")
    assert trainer.rows == []


@pytest.mark.parametrize("settings", [{}, {"algorithm": "ppo"}, {"lora": {"r": 4}}])
async def test_a_reference_that_is_not_the_beginning_stops_the_run(monkeypatch, settings):
    true = PolicyModel.reference_logprobs
    monkeypatch.setattr(PolicyModel, "reference_logprobs", lambda self, batch: true(self, batch) - 0.5)
    trainer = await started(beta=0.04, **settings)
    await stopped(trainer, "the KL to the reference is 0.[1-9]+.* before anything was learned")


async def test_a_ratio_that_is_not_1_stops_the_run(monkeypatch):
    true = PolicyModel.forward

    def other(self, batch, old, *, reference):
        found = true(self, batch, old, reference=reference)
        return type(found)(found.logprobs, found.entropies, found.old - 0.1, found.values, found.reference)

    monkeypatch.setattr(PolicyModel, "forward", other)
    await stopped(await started(), "the ratio of the first pass is 1.1052 and not 1")


async def test_a_step_that_teaches_nothing_is_no_test(caplog):
    """Equal rewards in the first step; the second one is the first update, and looked at in full."""
    caplog.set_level(logging.INFO)

    class Late(Vowels):
        asked = 0

        async def compute_reward(self, turns, context=None):
            self.asked += 1
            return RewardResult(0.5) if self.asked <= 8 else await super().compute_reward(turns, context)

    trainer = await started(steps=3)
    trainer.reward = trainer._player._reward = Late()
    await trainer.run()
    await trainer.agent.aclose()
    assert [row["updated"] for row in trainer.rows] == [False, True, True]
    assert ["gradient" in line for line in told(caplog)] == [True, False]


async def test_a_resumed_run_looks_at_sampler_and_ratio_again_and_at_nothing_else(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def call(episodes, **more):
        agent = MultiTurnAgent.from_model("tiny", max_new_tokens=12, dtype="float32", device="cpu", temperature=0.7)
        return train(
            agent,
            ConversationEnvironment(SCENARIOS, max_turns=2),
            reward_fn=Vowels(),
            config_overrides={**SMALL, "num_episodes": episodes, "beta": 0.04, "lr_schedule": "constant"},
            output_dir=tmp_path / "run",
            quiet=True,
            **more,
        )

    await call(16)
    await call(32, resume=True)
    lines = told(caplog)
    assert ["KL 0" in line for line in lines] == [True, False, False, False]
    assert ["gradient" in line for line in lines] == [True, False, False, False]
    assert all("log-probs" in line and "ratio 1" in line for line in lines)


async def test_a_run_that_begins_from_other_weights_is_not_at_its_reference(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    settings = {**SMALL, "num_episodes": 8, "beta": 0.04, "learning_rate": 1e-2}

    def call(name, **more):
        agent = MultiTurnAgent.from_model("tiny", max_new_tokens=12, dtype="float32", device="cpu", temperature=0.7)
        environment = ConversationEnvironment(SCENARIOS, max_turns=2)
        folder = tmp_path / name
        return train(
            agent,
            environment,
            reward_fn=Vowels(),
            config_overrides=settings,
            output_dir=folder,
            quiet=True,
            **more,
        )

    await call("first")
    await call("second", resume_from=tmp_path / "first")
    first, second = told(caplog)
    assert "KL 0" in first
    assert "KL" not in second
    assert "gradient in 20 of 20 weights" in second


def test_a_checksum_sees_every_element_its_place_and_its_sign():
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    one = checksum(weight)
    assert checksum(weight.clone()) == one
    for place in range(15):
        other = weight.clone()
        other.view(-1)[place] = torch.nextafter(other.view(-1)[place], torch.tensor(9.0))
        assert checksum(other) != one
    assert checksum(weight.flip(0)) != one
    assert checksum(-weight) != one
    assert checksum(weight.bfloat16()) != checksum((weight * 1.01).bfloat16())


def test_a_weight_whose_step_float32_cannot_show_need_not_move():
    """A norm of 1 and a rate of 1e-8: less than half of its last bit, 6e-8."""

    def refuse(means, look):
        raise TrainingStopped(means)

    def around(rate):
        norm = torch.ones(4)
        norm.grad = torch.full((4,), 0.1)
        check = WeightCheck(1e-8, 1.0, refuse)
        check.before({"norm": norm}, {}, rate)
        return check.after({"norm": norm}, {})

    assert around(1e-8) == "0 of them moved"
    with pytest.raises(TrainingStopped, match="1 of 1 trainable weights have a gradient and did not move"):
        around(1e-6)


async def test_an_update_that_is_shortened_may_leave_weights_where_they_are(monkeypatch, caplog):
    """Norms are 1 at first, where float32 shows a step of 1.6e-5, and not the 1024th part of it."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(step_bound, "MOST_KL", -1.0)
    trainer = await started(steps=1, learning_rate=1.6e-5, auto_adjust=True)
    await trainer.run()
    assert trainer.rows[0]["step_share"] == 2.0**-10
    (line,) = told(caplog)
    assert "gradient in 20 of 20 weights, 15 of them moved" in line


async def test_it_costs_no_forward_pass(monkeypatch):
    """As many passes through the model with it as without."""
    passes = {}
    for watched in (True, False):
        trainer = await started(steps=1, beta=0.04)
        if not watched:
            trainer._self_test._left = 0
        count = 0
        true = PolicyModel._states

        def counted(self, batch, true=true):
            nonlocal count
            count += 1
            return true(self, batch)

        monkeypatch.setattr(PolicyModel, "_states", counted)
        await trainer.run()
        await trainer.agent.aclose()
        monkeypatch.setattr(PolicyModel, "_states", true)
        passes[watched] = count
    assert passes[True] == passes[False] > 0


async def test_adapters_that_were_trained_before_are_not_at_their_reference(caplog):
    """The reference is the model without them. Mutation: `_began_there = True` in training/learner.py: stops."""
    caplog.set_level(logging.INFO)
    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=12, dtype="float32", device="cpu", temperature=0.7)
    settings = {**SMALL, "num_episodes": 8, "beta": 0.04, "learning_rate": 1e-2, "lora": {"r": 4}}
    for _ in range(2):
        environment = ConversationEnvironment(SCENARIOS, max_turns=2)
        await train(agent, environment, reward_fn=Vowels(), config_overrides=settings, quiet=True)
    await agent.aclose()
    first, second = told(caplog)
    assert "KL 0" in first
    assert "KL" not in second
    assert "gradient in 28 of 28 weights, 28 of them moved and none of 20" in second
