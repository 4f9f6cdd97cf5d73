"""What a machine cannot do is refused before any model is loaded."""

import pytest

from stateset_agents.core.errors import ConfigError
from stateset_agents.training import TRLGRPOConfig
from stateset_agents.training.trl import machine
from stateset_agents.training.trl.machine import Precision, require_machine, require_one_gpu


@pytest.fixture
def gpus(monkeypatch):
    """Says how many GPUs there are, and whether they compute in bfloat16."""

    def set_to(count, *, bf16=True, bitsandbytes=True):
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: bf16)
        monkeypatch.setattr(machine, "find_spec", lambda _: object() if bitsandbytes else None)

    return set_to


@pytest.mark.parametrize("field", ["use_8bit", "use_4bit"])
@pytest.mark.parametrize(
    ("count", "bitsandbytes", "words"),
    [
        (0, True, "needs a CUDA GPU, which"),
        (1, False, "needs the package bitsandbytes (pip install bitsandbytes), which"),
        (0, False, "needs the package bitsandbytes (pip install bitsandbytes) and a CUDA GPU, which"),
        (1, True, "quantised base weights are not trained by this version"),
    ],
)
def test_quantised_weights_are_refused_with_what_is_missing(gpus, field, count, bitsandbytes, words):
    gpus(count, bitsandbytes=bitsandbytes)
    with pytest.raises(ConfigError) as caught:
        require_machine(TRLGRPOConfig(**{field: True}))
    assert f"{field}" in str(caught.value)
    assert words in str(caught.value)


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
