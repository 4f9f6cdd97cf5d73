"""A limit of the operating system on the process: memory really runs out, in the allocator, in an update."""

import re
import sys

import pytest

LIMITED = """
import resource
from stateset_agents.training.learner import Learner
step = Learner.step
def limited(*arguments, **more):
    with open("/proc/self/statm") as numbers:
        taken = int(numbers.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 100 * 2**20, resource.RLIM_INFINITY))
    try:
        return step(*arguments, **more)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
Learner.step = limited
"""
"""An update may take 100 MB more than the process had; 64 conversations at once need over 150."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits on a process's memory hold on Linux alone")
def test_an_update_that_gets_no_more_memory_is_made_in_pieces_and_ends_as_one_that_began_so(work):
    """Mutation: gradients of the pass that failed are kept."""
    shape = {"agent__max_new_tokens": 96, "training__num_generations": 16, "training__num_episodes": 128}
    work.write(**shape, training__batch_size=64, training__gradient_accumulation_steps=1)
    ended = work.train("--output-dir", "short", before=LIMITED)
    assert ended.code == 0, ended.err
    found = [int(size) for size in re.findall(r"can't allocate memory.* there are at most (\d+)", ended.err)]
    assert found == [32, 16, 8, 4][: len(found)]
    assert found
    work.write(**shape, training__batch_size=found[-1], training__gradient_accumulation_steps=64 // found[-1])
    assert work.train("--output-dir", "small").code == 0
    one, other = (work.path / run / "final_model" / "model.safetensors" for run in ("short", "small"))
    assert one.read_bytes() == other.read_bytes()
