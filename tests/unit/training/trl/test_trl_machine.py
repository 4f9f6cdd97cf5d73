"""What a machine cannot do is refused before any model is loaded."""

import pytest

from stateset_agents import ConversationEnvironment, MultiTurnAgent
from stateset_agents.core.agent import AgentConfig
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import SafetyReward
from stateset_agents.training import TRLGRPOConfig
from stateset_agents.training.trl.machine import Precision, require_machine, require_one_gpu
from stateset_agents.training.trl.run import TRLRun


@pytest.fixture
def gpus(monkeypatch):
    """Says how many GPUs there are, and whether they compute in bfloat16."""

    def set_to(count, *, bf16=True):
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: bf16)

    return set_to


@pytest.mark.parametrize("field", ["use_8bit", "use_4bit"])
def test_rounded_weights_are_refused_with_the_reason_and_the_field(monkeypatch, field):
    asked = []

    def cannot(bits, device):
        asked.append((bits, device))
        return "needs the package bitsandbytes"

    monkeypatch.setattr("stateset_agents.models.quantized.why_not", cannot)
    with pytest.raises(ConfigError, match=f"{field} needs the package bitsandbytes; or leave {field} out"):
        require_machine(TRLGRPOConfig(**{field: True}), "cpu")
    assert asked == [(int(field[4]), "cpu")]
    require_machine(TRLGRPOConfig(), "cpu")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("fields", "count", "waits"),
    [
        ({"use_4bit": True}, 1, True),
        ({"use_8bit": True, "device_map": "cuda"}, 1, True),
        ({"use_4bit": True, "device_map": "cpu"}, 1, False),
        ({"use_4bit": True}, 0, False),
        ({}, 1, False),
    ],
)
def test_weights_wait_in_main_memory_only_where_rounded_ones_go_to_a_gpu(gpus, fields, count, waits):
    gpus(count)
    agent = MultiTurnAgent(AgentConfig(model_name="tiny"))
    run = TRLRun(
        TRLGRPOConfig(**fields), agent, ConversationEnvironment(scenarios=[{"user_responses": ["Hi!"]}]), SafetyReward()
    )
    assert run._waits_in_main_memory() == waits


@pytest.mark.parametrize(
    ("fields", "count", "bf16", "expected"),
    [
        ({"bf16": True}, 1, True, (True, False, False)),
        ({"bf16": True}, 1, False, (False, False, False)),
        ({"fp16": True}, 1, True, (False, True, False)),
        ({"bf16": True}, 0, True, (False, False, True)),
        ({"fp16": True}, 0, True, (False, False, True)),
        ({"bf16": True, "device_map": "cpu"}, 1, True, (False, False, True)),
    ],
)
def test_a_precision_is_used_only_where_it_is_there_and_its_lack_is_said(gpus, fields, count, bf16, expected):
    gpus(count, bf16=bf16)
    found = Precision.of(TRLGRPOConfig(**fields), None)
    assert (found.bf16, found.fp16, found.use_cpu) == expected
    assert bool(found.notes) == (not any(expected[:2]))


def test_several_visible_gpus_are_refused_unless_the_model_is_on_the_cpu(gpus):
    gpus(2)
    with pytest.raises(ConfigError, match=r"2 GPUs are visible.*CUDA_VISIBLE_DEVICES"):
        require_one_gpu("cuda")
    require_one_gpu("cpu")
    gpus(1)
    require_one_gpu("cuda")
