"""Memory that runs out where nothing can be cut smaller: the run ends with what helps, and goes on as it was saved."""

import pytest

SHORT = """
import torch
import stateset_agents.training.learner
from stateset_agents.training import step_bound
real = {place}
calls = 0
def short(*arguments, **more):
    global calls
    calls += 1
    if calls == 3:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\\nmore")
    return real(*arguments, **more)
{place} = short
"""


@pytest.mark.parametrize(
    "place", ["torch.optim.AdamW.step", "step_bound.StepBound.__init__", "step_bound.StepBound.shorten"]
)
def test_memory_that_runs_out_in_an_update_ends_the_run_with_what_helps_and_loses_nothing(work, place):
    """After two steps that were saved. Mutation: not explained in `execute`."""
    work.write(training__auto_adjust=True, training__save_every=1)
    assert work.train("--output-dir", "whole").code == 0
    ended = work.train(before=SHORT.format(place=place))
    assert ended.code == 3, ended.err
    assert "out of memory: CUDA out of memory. Tried to allocate 2 GiB\n  use the profile conservative" in ended.err
    assert "Traceback" not in ended.err
    assert work.status()["state"] == "failed"
    assert [row["step"] for row in work.metrics()] == [1, 2]
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert work.metrics() == work.metrics("whole")
    one, other = (work.path / run / "final_model" / "model.safetensors" for run in ("outputs", "whole"))
    assert one.read_bytes() == other.read_bytes()
