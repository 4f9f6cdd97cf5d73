"""A step that runs out of memory is done again in smaller pieces, and ends as if it had begun with them."""

import logging

import pytest
import torch

from stateset_agents.core.errors import ModelError

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
MPS = RuntimeError("MPS backend out of memory (MPS allocated: 17.96 GB, max allowed: 18.13 GB)")


def shortage_of_this_machine():
    try:
        return torch.empty(2**50)
    except RuntimeError as error:
        return error


def assert_same_state(one, other):
    for mine, its in zip(one.state()[:2], other.state()[:2], strict=True):
        assert mine.keys() == its.keys()
        assert [name for name in mine if not torch.equal(mine[name], its[name])] == []


def compared(kit, sizes, room, **settings):
    """Two steps of a learner that must halve in its first one, and of one that began with the half."""
    whole, half = (kit.learner(**{"batch_size": size, "num_generations": 4, **settings}) for size in sizes)
    shortage = kit.Shortage(whole, room, backward=settings.get("gradient_checkpointing", False))
    rows = [[kit.step(learner).to_dict() for _ in range(2)] for learner in (whole, half)]
    assert shortage.met == 1
    assert whole.micro_batch.size == sizes[1]
    return whole, half, rows


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta": 0.04, "num_iterations": 2},
        {"algorithm": "ppo"},
        {"algorithm": "trpo", "cg_iterations": 2},
        {"top_entropy_share": 0.5},
        {"gradient_checkpointing": True},
        {"compute": torch.bfloat16},
    ],
    ids=str,
)
def test_a_step_that_runs_out_of_memory_ends_as_one_that_began_with_half_the_conversations(kit, settings):
    """Mutation: no zero_grad before a pass; log-probs of a pass that failed kept as old ones; a comparison not made."""
    whole, half, (one, other) = compared(kit, (8, 4), 90, **settings)
    assert one[0]["updated"]
    assert one == other
    assert_same_state(whole, half)


def test_a_pair_that_is_compared_with_all_others_is_compared_with_them_again(kit):
    whole, half, (one, other) = compared(kit, (4, 2), 50, algorithm="dpo", preference_loss="aot")
    assert one == other
    assert_same_state(whole, half)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_what_was_added_to_the_gradient_before_memory_ran_out_is_not_added_again(kit, backward):
    """The second of two micro-batches fails. Mutation: no zero_grad before a pass."""
    whole, half = kit.learner(batch_size=4), kit.learner(batch_size=2)
    shortage = kit.Shortage(whole, 50, skip=1, backward=backward)
    for learner in (whole, half):
        kit.step(learner)
    assert (shortage.met, whole.micro_batch.size) == (1, 2)
    assert_same_state(whole, half)


@pytest.mark.parametrize(
    "error", [CUDA, shortage_of_this_machine(), MPS, MemoryError()], ids=["CUDA", "CPU", "MPS", "Python"]
)
def test_every_kind_of_shortage_is_known_and_told_once_with_what_is_done_about_it(kit, caplog, error):
    learner = kit.learner(batch_size=8)
    kit.Shortage(learner, 90, error=error)
    with caplog.at_level(logging.WARNING):
        kit.step(learner)
        kit.step(learner)
    (record,) = caplog.records
    assert "memory ran out with 8 conversations in the model at once (" in record.message
    assert record.message.endswith("the step is done again, and from here on there are at most 4")
    assert "\n" not in record.message


def test_in_a_second_pass_old_log_probs_are_those_of_the_first_one(kit, record_losses):
    """Mutation: old log-probs forgotten with the cut, so that the second pass has ratio 1."""
    learner, free = (kit.learner(batch_size=8, num_iterations=2) for _ in range(2))
    shortage = kit.Shortage(learner, 90, skip=1)
    measured = kit.step(learner)
    assert (shortage.met, learner.micro_batch.size) == (1, 4)
    (first, *second), record_losses[:] = list(record_losses), []
    assert len(second) == 2
    assert torch.equal(torch.cat([old for _, old, _ in second]).sort().values, first[0].detach().sort().values)
    expected = kit.step(free)
    assert measured.ratio_mean == pytest.approx(expected.ratio_mean, rel=1e-5)
    assert measured.ratio_mean != 1.0
    assert kit.relative_gap(kit.masters(learner), kit.masters(free)) < 1e-4


def test_it_is_halved_as_often_as_it_takes_from_the_conversations_that_there_are(kit):
    learner = kit.learner(batch_size=64)
    kit.Shortage(learner, 50)
    kit.step(learner)
    assert learner.micro_batch.size == 2


def test_when_one_conversation_alone_does_not_fit_the_error_says_what_helps(kit):
    learner = kit.learner(batch_size=8)
    before = kit.masters(learner)
    kit.Shortage(learner, 5)
    with pytest.raises(ModelError) as caught:
        kit.step(learner)
    assert str(caught.value).startswith(
        "out of memory: one conversation alone does not fit (CUDA out of memory. Tried to allocate 2 GiB)\n"
        "  use the profile conservative (smaller micro-batches, recomputed activations), a smaller batch_size or"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.weights.state().items())


def test_another_error_is_not_taken_for_a_shortage(kit):
    learner = kit.learner(batch_size=8)
    kit.Shortage(learner, 90, error=RuntimeError("the shapes do not fit"))
    with pytest.raises(RuntimeError, match="the shapes do not fit"):
        kit.step(learner)
    assert learner.micro_batch.size == 8


def test_a_resumed_run_begins_with_what_was_found_to_fit_unless_it_asks_for_something_else(kit):
    """Mutation: the size not saved, or not loaded."""
    learner = kit.learner(batch_size=8)
    kit.Shortage(learner, 90)
    kit.step(learner)
    sizes = []
    for asked in (8, 6, 16):
        resumed = kit.learner(batch_size=asked)
        resumed.load(*learner.state())
        sizes.append(resumed.micro_batch.size)
    assert sizes == [4, 6, 16]
    old = learner.state()
    del old[2]["micro_batch"]  # of a run before there was such a thing
    resumed = kit.learner(batch_size=8)
    resumed.load(*old)
    assert resumed.micro_batch.size == 8
