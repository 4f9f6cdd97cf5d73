"""A resumed run says whether it goes on to the bit, and if not, why."""

import json

import pytest
import torch

from stateset_agents.config.training import TrainingConfig
from stateset_agents.training.identity import identity, inexact

CPU = torch.device("cpu")
SETTINGS = {"num_episodes": 64, "batch_size": 4, "gradient_accumulation_steps": 2, "num_generations": 4}


def config_of(**settings):
    return TrainingConfig.from_profile("balanced", **{**SETTINGS, "warmup_steps": 0, **settings})


def reasons(*, device=CPU, steps=3, then=None, changed=None, **settings):
    record = {"config": config_of(**(then or {})).fingerprint_fields(), "identity": identity(CPU), "step": steps}
    record["identity"] |= changed or {}
    return list(inexact(json.loads(json.dumps(record)), config_of(**settings), device))


def test_on_the_same_machine_with_the_same_settings_it_is_exact():
    assert reasons() == []


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("stateset_agents", "0.0.9"), ("python", "3.8.1"), ("torch", "1.13.0"), ("transformers", "4.0.0"),
        ("processor", "Abacus"), ("instructions", "DEFAULT"), ("threads", 64), ("device", "NVIDIA H100"),
    ],
)  # fmt: skip
def test_each_difference_of_version_or_machine_is_told_with_both_values(name, other):
    """Mutation: a value left out of `identity`."""
    assert reasons(changed={name: other}) == [f"{name} is {identity(CPU)[name]} instead of {other}"]


def test_several_differences_are_told_each(monkeypatch):
    told = reasons(changed={"torch": "1.13.0"}, batch_size=2, gradient_accumulation_steps=4)
    assert told == [
        f"torch is {torch.__version__} instead of 1.13.0",
        "batch_size is 2 instead of 4: the same updates but for rounding",
    ]


def test_another_number_of_threads_is_found(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    before = identity(CPU)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert reasons(changed=before) == ["threads is 4 instead of 3"]


def test_what_adds_up_in_no_fixed_order_is_never_exact():
    told = reasons(device=torch.device("mps"), changed={"device": "mps"})
    assert told == ["a mps device adds up in no fixed order"]


def test_a_checkpoint_that_says_nothing_about_its_machine_is_not_called_exact():
    record = {"config": config_of().fingerprint_fields(), "step": 3}
    assert list(inexact(record, config_of(), CPU)) == ["its checkpoint does not say on what machine it was written"]


@pytest.mark.parametrize(
    ("schedule", "told"),
    [("constant", []), ("linear", ["128 episodes have another learning-rate schedule than 64"])],
)
def test_a_longer_run_is_exact_if_its_steps_so_far_would_have_had_the_same_learning_rates(schedule, told):
    """Mutation: `_other_rates` false."""
    assert reasons(then={"lr_schedule": schedule}, lr_schedule=schedule, num_episodes=128) == told
    assert reasons(then={"lr_schedule": schedule}, lr_schedule=schedule) == []
