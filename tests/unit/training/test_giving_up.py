"""A step that is given up, wherever in it that is, was not made."""

import asyncio

import pytest
import torch

from stateset_agents.models import attach_lora
from stateset_agents.models.memory import Memory
from stateset_agents.training import giving_up
from stateset_agents.training.giving_up import GivenUp, Patience
from stateset_agents.training.stop_request import StopRequest


def step(kit, learner, is_over):
    return learner.step(kit.two_groups(), max_tokens=20, is_over=is_over)


def copy_of(learner):
    weights, slots, counters = learner.state()
    return [{name: tensor.clone() for name, tensor in part.items()} for part in (weights, slots)], counters


def assert_is(learner, copied):
    tensors, counters = copied
    *parts, now = learner.state()
    assert now == counters
    for part, before in zip(parts, tensors, strict=True):
        assert part.keys() == before.keys()
        assert [name for name in part if not torch.equal(part[name], before[name])] == []
    assert [name for name, master in learner.weights.state().items() if master.grad is not None] == []


SETTINGS = [
    {},
    {"beta": 0.04, "num_iterations": 2},
    {"algorithm": "ppo", "num_iterations": 2, "batch_size": 4},
    {"algorithm": "trpo", "cg_iterations": 2},
    {"algorithm": "dpo", "preference_loss": "aot", "batch_size": 4},
    {"top_entropy_share": 0.5, "batch_size": 4},
    {"beta": 0.04, "kl_in": "reward", "kl_estimator": "k1"},
    {"gradient_checkpointing": True, "num_iterations": 2},
    {"compute": torch.bfloat16, "num_iterations": 2},
    {"auto_adjust": True, "num_iterations": 2},
    {"lora": True, "beta": 0.04, "num_iterations": 2},
    {"algorithm": "sft"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_given_up_at_any_look_a_step_leaves_nothing_and_is_made_the_same_afterwards(kit, settings):
    """The first step of a learner and its second one. Mutations: gradients, moments, weights or old log-probs kept."""
    made = [attach_lora(kit.tiny(), r=4) if settings.get("lora") else None for _ in range(2)]
    given_up, whole = (kit.learner(loaded, **settings) for loaded in made)
    for _ in range(2):
        count = kit.Over()
        expected = step(kit, whole, count).to_dict()
        assert expected["updated"]
        before = copy_of(given_up)
        for number in range(1, count.looks + 1):
            with pytest.raises(GivenUp):
                step(kit, given_up, kit.Over(number))
            assert_is(given_up, before)
        assert step(kit, given_up, kit.Over(count.looks + 1)).to_dict() == expected
        assert_is(given_up, copy_of(whole))


@pytest.mark.parametrize(
    ("looks", "settings"),
    [
        # two layers, forwards and backwards, and once before each part of the work
        (1 + 4, {}),
        (1 + 2 * 4, {"batch_size": 4}),
        (1 + 4 + 2, {"beta": 0.04}),  # and the reference forwards
        (2 * (1 + 4), {"num_iterations": 2}),
        (1 + 2 * 2 + 1 + 2 * 4, {"top_entropy_share": 0.5, "batch_size": 4}),  # entropies first
        (1 + 4 + 2, {"gradient_checkpointing": True}),  # forwards, again, and backwards
        (1 + 4 + 1 + 2, {"auto_adjust": True}),  # the policy before, to compare with; not what follows the update
    ],
    ids=str,
)
def test_a_request_is_seen_before_each_layer_forwards_and_backwards(kit, looks, settings):
    """Mutations: no hook on the way back; a reference that is not watched; a look in what cannot be taken back."""
    count = kit.Over()
    step(kit, kit.learner(**settings), count)
    assert count.looks == looks


def test_what_cannot_be_taken_back_is_finished(kit, monkeypatch):
    """Without memory for a copy a request is not seen any more once the first of two updates was made.

    Mutation: it is seen, and the weights are those between two updates.
    """
    monkeypatch.setattr(giving_up, "memory_of", lambda device: Memory("RAM", 0, 2**30))
    one, other = (kit.learner(num_iterations=2) for _ in range(2))
    count = kit.Over()
    expected = step(kit, one, count).to_dict()
    assert count.looks == 1 + 4
    before = copy_of(other)
    with pytest.raises(GivenUp):
        step(kit, other, kit.Over(5))
    assert_is(other, before)
    assert step(kit, other, kit.Over(6)).to_dict() == expected
    assert_is(other, copy_of(one))


def test_a_copy_takes_a_quarter_of_the_free_memory_at_most(kit, monkeypatch):
    """Weights in float32 and two moments of each, which the first update makes, with a count for each tensor."""
    learner = kit.learner(num_iterations=2)
    masters = learner.weights.masters
    weights = sum(master.numel() * 4 for master in masters)
    for needed in (3 * weights, 3 * weights + 4 * len(masters)):
        for free, looks in ((4 * needed - 1, 5), (4 * needed, 10)):
            monkeypatch.setattr(giving_up, "memory_of", lambda device, free=free: Memory("RAM", free, 2**40))
            count = kit.Over()
            with pytest.raises(GivenUp):
                step(kit, learner, kit.Over(1))
            before = copy_of(learner)
            step(kit, learner, count)
            assert count.looks == looks
            learner.load(*before[0], before[1])
            if needed == 3 * weights:
                learner.optimizer.state.clear()
        step(kit, learner, None)


def test_where_memory_runs_out_the_copy_is_let_go_and_what_follows_is_finished(kit):
    """Mutation: the copy is kept while micro-batches are halved; a request is seen without it."""
    expected = step(kit, kit.learner(num_iterations=2), None).to_dict()
    # Memory runs out behind the two layers: in the first pass, which is then made in two pieces; in the second one.
    for skip, looks in ((0, 1 + 2 + 1 + 2 * 4), (1, 1 + 4 + 1 + 2)):
        one, count = kit.learner(num_iterations=2), kit.Over()
        shortage = kit.Shortage(one, 90, skip=skip)
        found = step(kit, one, count).to_dict()
        assert (shortage.met, one.micro_batch.size) == (1, 4)
        assert found["ratio_mean"] == pytest.approx(expected["ratio_mean"], rel=1e-5)
        assert count.looks == looks


def test_what_did_not_fit_in_a_step_that_was_given_up_is_found_out_again(kit):
    """The resumed run halves where the undisturbed one does. Mutation: the smaller size stays."""
    one, other = (kit.learner(num_iterations=2) for _ in range(2))
    shortages = [kit.Shortage(learner, 90) for learner in (one, other)]
    before = copy_of(one)
    with pytest.raises(GivenUp):
        step(kit, one, kit.Over(5))
    assert (shortages[0].met, one.micro_batch.size) == (1, 8)
    assert_is(one, before)
    assert step(kit, one, None).to_dict() == step(kit, other, None).to_dict()
    assert_is(one, copy_of(other))


@pytest.mark.parametrize(
    ("asked", "now", "over", "seconds", "update", "save"),
    [
        (None, 1000.0, False, 10.0, 5.0, 3.0),
        (101.0, 101.0, False, 10.0, 5.0, 3.0),  # ends at 105, saved at 108, and there is time until 111
        (101.0, 107.9, False, 10.0, 5.0, 3.0),  # longer than ever, but in time
        (101.0, 108.0, True, 10.0, 5.0, 3.0),  # 3 s are left for the checkpoint
        (101.0, 101.0, True, 10.0, 8.5, 3.0),  # would end at 108.5
        (101.0, 101.0, False, 10.0, 8.0, 3.0),
        (101.0, 101.0, False, 10.0, None, None),  # nothing is known: half of it
        (101.0, 105.9, False, 10.0, None, None),
        (101.0, 106.0, True, 10.0, None, None),
        (101.0, 101.0, True, 0.0, 0.1, 0.1),
        (101.0, 101.0, True, 0.0, None, None),
        (101.0, 101.0, True, 2.0, 0.1, 3.0),  # the checkpoint alone takes longer
    ],
)
async def test_an_update_that_would_end_in_time_is_finished_and_any_other_given_up(
    monkeypatch, asked, now, over, seconds, update, save
):
    clock = [100.0]
    monkeypatch.setattr(giving_up.time, "monotonic", lambda: clock[0])
    stop = StopRequest()
    patience = Patience(stop, seconds, update=update, save=save)
    stop.asked_at, clock[0] = asked, now
    assert patience.is_over() is over
    rows = [{"train_seconds": update, "save_seconds": save}] if update else []
    clock[0] = 100.0
    known = Patience.of(stop, seconds, rows, save=0.0)
    clock[0] = now
    assert known.is_over() is over


def test_how_long_an_update_and_a_save_take_is_told_by_the_steps_before():
    """The longest of five updates, the last save that there was. Mutation: the last update, which had nothing to do."""

    async def over(stop, rows, since):
        stop.asked_at = giving_up.time.monotonic()
        return Patience.of(stop, 10.0, rows, save=since).is_over()

    def row(train, save=0.0):
        return {"train_seconds": train, "save_seconds": save}

    for rows, since, expected in [
        ([row(9.5), *[row(0.0)] * 4], 0.0, True),  # with half a second for a save there is time for less
        ([row(60.0), *[row(1.0, 1.0)] * 5], 0.0, False),
        ([row(7.0, 4.0), row(7.0), row(7.0)], 0.0, True),
        ([row(7.0, 4.0), row(7.0), row(7.0)], 1.0, False),
        ([row(7.0, 1.0), row(7.0)], 0.0, False),
        ([row(9.5)], None, False),  # a run that saves nothing
    ]:
        assert asyncio.run(over(StopRequest(), rows, since)) is expected


async def test_a_task_that_is_cancelled_is_a_request_too():
    """A library call has no signals of its own. One that came before the run was not meant for it.

    Mutations: only the trainer's request counts; one that was caught before the run counts.
    """
    seen = []

    async def work():
        asyncio.current_task().cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        patience = Patience(StopRequest(), 0.0, update=None, save=None, cancels=1)
        seen.append(patience.is_over())
        asyncio.current_task().cancel()  # as a handler of signals does, in the midst of what does not await
        seen.append(patience.is_over())
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())
    assert seen == [False, True]
