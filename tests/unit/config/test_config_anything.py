"""Whatever is written into a config file, the user gets a run or a message, never another exception."""

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stateset_agents.config import Override, TrainingConfig, load_config
from stateset_agents.config.schema import ConfigFile
from stateset_agents.core.errors import ConfigError, DataError

KEYS = sorted(
    {
        *ConfigFile.model_fields,
        *TrainingConfig.model_fields,
        "overrides",
        "type",
        "weight",
        "module",
        "functions",
        "wandb",
    }
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["${A}", "${A:-b}", "${", "$${", "tiny", "5e-6", "custom", "min", "true"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=5)), inner, max_size=4),
    ),
    max_leaves=12,
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def told(path: Path, *overrides: Override) -> list[str]:
    """The problems of a config; empty where it makes a run. Any other exception is a fault."""
    try:
        load_config(path, overrides=overrides, environ={})
    except (ConfigError, DataError) as error:
        return list(error.problems) if isinstance(error, ConfigError) else [str(error)]
    return []


def check(content: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        problems = told(path)
    assert all(problem.startswith(("config error", "data error in")) for problem in problems)


@quick
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=4))
def test_any_values_in_known_keys_are_told(data):
    check(yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass"), "run.yaml")


@quick
@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@`,?\n\t 01.~<", max_size=40), st.sampled_from(["run.yaml", "run.json"]))
def test_any_text_check(text, name):
    check(text.encode(), name)


@quick
@given(st.binary(max_size=40), st.sampled_from(["run.yaml", "run.json"]))
def test_any_bytes_are_told(content, name):
    check(content, name)


@quick
@given(
    st.integers(1, 5000),
    st.integers(2, 64),
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(0, 3000),
    st.integers(1, 3000),
    st.integers(0, 500),
)
def test_a_plan_always_covers_what_was_asked_for(episodes, group, batch, accumulation, every, patience, warmup):
    plan = TrainingConfig.from_profile(
        "balanced",
        num_episodes=episodes,
        num_generations=group,
        batch_size=batch,
        gradient_accumulation_steps=accumulation,
        eval_every=every,
        save_every=every,
        patience=patience,
        warmup_steps=warmup,
    ).plan
    step = plan.conversations_per_step
    assert step % group == 0
    assert batch * accumulation <= step < batch * accumulation + group
    assert episodes <= plan.total_episodes == plan.total_steps * step < episodes + step
    assert plan.micro_batches_per_step * batch >= step > (plan.micro_batches_per_step - 1) * batch
    assert plan.warmup_steps <= warmup
    assert plan.warmup_steps * 10 <= max(plan.total_steps, 0)
    assert plan.patience_evaluations >= 3
    if every:
        assert every <= plan.eval_every_steps * step < every + step
        assert plan.patience_evaluations * plan.eval_every_steps * step >= patience


@pytest.mark.parametrize("value", [None, [], {}, "x", -1, float("nan"), True, 10**30])
@pytest.mark.parametrize("key", sorted(TrainingConfig.model_fields))
def test_any_value_of_any_flag_check(write, key, value):
    path = write("environment: {scenarios_file: scenarios.json}\n")
    problems = told(path, Override(f"training.{key}", value, f"--{key}"))
    assert all(f"--{key}" in problem or f"training.{key}" in problem for problem in problems)
