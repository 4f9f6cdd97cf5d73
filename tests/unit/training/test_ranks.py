"""Several processes make the step of one: real process groups (gloo), the tiny model, every algorithm.

A rank that leaves the others alone in a collective (because it has no work, or refuses an update by itself) ends in an
error of the processes, which fails every test that looks at them.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stateset_agents.config.algorithms import RECIPES
from stateset_agents.core.errors import ConfigError
from stateset_agents.training.ranks import Ranks
from stateset_agents.training.samples import samples_of
from stateset_agents.training.shares import shares, unique_tokens

COMPARED = ("entropy", "aot", "aot_unpaired", "off_policy")
"""Losses in which a token or pair is compared with those of other ranks."""
PROGRAM = Path(__file__).with_name("ranks_process.py")
LONGEST = 500
"""Seconds for all processes: three on two cores that others use as well."""
pytestmark = pytest.mark.timeout(LONGEST + 60)


def results(folder, size):
    """What each of so many processes wrote."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(rank), str(folder), str(size)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    end = time.monotonic() + LONGEST
    try:
        errors = [process.communicate(timeout=max(0.1, end - time.monotonic()))[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert [process.returncode for process in ranks] == [0] * size, "\n".join(errors)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Of three."""
    return results(tmp_path_factory.mktemp("ranks"), 3)


@pytest.fixture
def two(together):
    """Two ranks on two groups of four conversations: 31 trained tokens on one, 36 on the other."""
    return [rank["two"] for rank in together[:2]]


@pytest.fixture
def three(together):
    """Three ranks on one group of two conversations."""
    return [rank["three"] for rank in together]


def test_two_ranks_with_unequal_tokens_have_the_gradient_of_one(two):
    """To 1e-6 of the largest element of each tensor, where the micro-batches are those that one process makes.

    Mutations: the mean of the ranks' gradients, the gradient of one rank forgotten, values and divergences measured by
    each rank for its own conversations only, entropies or ranks of pairs compared with its own only, gradients clipped
    before they are summed, the value head not summed.
    Second passes begin from weights that differ in their last bits already; another cut into micro-batches is another
    packing, which alone makes 2e-6.
    """
    for name, found in two[0].items():
        if name in RECIPES or name in COMPARED:
            assert found["gradients"][0] < 1e-6, name
            assert max(found["gradients"]) < 2e-5, name
    assert two[0].keys() >= RECIPES.keys()
    assert [rank["grpo"]["tokens"] for rank in two] == [31, 36]
    assert [rank["dpo"]["tokens"] for rank in two] == [13, 19]
    assert [rank["rft"]["tokens"] for rank in two] == [4, 11]
    assert two[0]["lora"]["gradients"][0] < 1e-6
    assert two[0]["another cut"]["gradients"][0] < 5e-6
    assert two[0]["bfloat16"]["gradients"][0] < 0.05


@pytest.mark.parametrize("ranks", ["two", "three"])
def test_all_ranks_end_with_the_same_bytes_and_make_the_change_of_one(ranks, request):
    """To what the difference of two float32 weights can show; the solver of a natural step magnifies rounding.

    Mutations: one rank's gradient forgotten, clipping by a rank's own norm; for the natural step the damping added by
    each rank, Fisher products, gain or KL of a rank's own share.
    """
    results = request.getfixturevalue(ranks)
    for name, found in results[0].items():
        if "change" in found:
            assert len({(rank[name]["digest"], rank[name]["slots"]) for rank in results}) == 1, name
            assert found["change"] < {"trpo": 1e-2, "bfloat16": 0.1}.get(name, 1e-3), name


@pytest.mark.parametrize("ranks", ["two", "three"])
def test_every_rank_tells_what_the_whole_step_measured(ranks, request):
    """Mutation: a rank's own sums."""
    results = request.getfixturevalue(ranks)
    for name, found in results[0].items():
        if "change" not in found or name in ("bfloat16", "another cut"):
            continue
        assert all(rank[name]["measured"] == found["measured"] for rank in results), name
        for key, number in found["expected"].items():
            assert found["measured"][key] == (number if number is None else pytest.approx(number, rel=1e-4)), key


def test_a_rank_without_work_takes_part(three):
    """Mutation: it skips the pass and what belongs to it."""
    for name, tokens in {"grpo": [5, 12, 0], "ppo": [5, 12, 0], "dpo": [17, 0, 0], "rft": [5, 0, 0]}.items():
        assert [rank[name]["tokens"] for rank in three] == tokens
    for name in ("grpo", "rloo", "ppo", "trpo", "dpo", "rft", "entropy", "aot"):
        assert three[0][name]["gradients"][0] < 1e-6, name


def test_a_loss_that_is_not_finite_on_one_rank_is_refused_by_all(two):
    """Mutation: the rank that sees it raises at once, and the other waits for it."""
    found = [rank["refused"]["not finite"] for rank in two]
    assert [one["own_loss"] == "nan" for one in found] == [True, False]
    assert all("the loss is not finite" in one["message"] and one["unmoved"] for one in found)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """Two ranks, of which one runs out of memory or must give up."""
    return results(tmp_path_factory.mktemp("disturbed"), 2)


def test_a_step_that_one_rank_gives_up_is_given_up_by_both_and_made_the_same_afterwards(disturbed):
    """At each look of rank 0 in the first step, and of rank 1 in the second one.

    Mutations: a rank gives up by itself (and the other one waits for it); only one of them goes back.
    """
    one, other = (rank["given up"] for rank in disturbed)
    assert one.keys() == {"grpo", "ppo", "trpo", "entropy"}
    for name, found in one.items():
        assert found["given up"] == other[name]["given up"], name
        assert min(found["given up"]) >= 5, name  # a look, and two layers forwards and backwards
        for step in (0, 1):
            assert len({*found[f"digests {step}"], *other[name][f"digests {step}"]}) == 1, (name, step)


def test_a_step_in_which_one_rank_runs_out_of_memory_is_halved_by_both_and_ends_as_one_that_began_so(disturbed):
    """The passes of TRPO: the gradient's, four of Fisher products, one before its step, those of the line search.

    Mutation: any of these, or what measures values or observes for comparisons, outside of `fitting`.
    """
    one, other = (rank["short"] for rank in disturbed)
    assert len(one) == 10
    for name, found in one.items():
        assert (found["met"], other[name]["met"]) == (0, 1), name
        assert (found["size"], other[name]["size"]) == (2, 2), name
        assert len({*found["digests"], *other[name]["digests"]}) == 1, name
        assert found["rows"][0] == found["rows"][1] == other[name]["rows"][0], name


@pytest.mark.parametrize("what", ["conversations", "weights"])
def test_ranks_that_differ_are_refused_by_all(two, what):
    """A reward on rank 1, a weight of its value head. Mutation: no comparison."""
    found = [rank["refused"][what] for rank in two]
    assert all(f"the {what} of rank 1 are not those of rank 0" in one["message"] for one in found)
    assert all(one["unmoved"] for one in found)


def test_groups_without_a_difference_move_nothing_on_any_rank(two):
    assert [rank["flat"]["updated"] for rank in two] == [False, False]


def test_a_gradient_is_summed_where_any_rank_has_one_and_stays_none_elsewhere(two):
    """(1, 10) + (2, 20); nothing + (3, 4); nothing on either, which weight decay would move if it were zeros.

    Mutation: zeros wherever a gradient is missing.
    """
    assert [rank["gradients"] for rank in two] == [[[3.0, 30.0], [3.0, 4.0], None]] * 2


def test_ranks_compute_in_bfloat16_only_if_all_do(two):
    """Each rank measures for itself which precision is faster. Mutation: each keeps its own."""
    assert [rank["precision"][0] for rank in two] == ["torch.float32"] * 2
    assert "so all use float32" in two[0]["precision"][1]


def test_ranks_without_a_process_group_are_refused():
    with pytest.raises(ConfigError, match="init_process_group"):
        Ranks()


def cut(kit, groups, ranks):
    samples = samples_of(groups, kit.learner(beta=0.1).config, 20)
    found = shares(samples, ranks)
    assert [sample for share in found for sample in share] == samples
    return [[sample.conversation for sample in share] for share in found], [unique_tokens(share) for share in found]


def test_a_share_is_a_run_of_conversations_and_the_largest_is_as_small_as_can_be(kit):
    """Mutations: a prompt counted for each conversation, rows of a conversation taken apart.

    Prompt 12, then 3 + 4 + n - 1 tokens: 7, 12, 9, 15; prompt 9: 11, 8, 14, 10; and a row of 7 + 4.
    """
    assert cut(kit, kit.two_groups(), 1) == ([[0, 1, 2, 3, 4, 5, 6, 7, 7]], [12 + 43 + 9 + 43 + 11])
    assert cut(kit, kit.two_groups(), 2) == ([[0, 1, 2, 3], [4, 5, 6, 7, 7]], [12 + 43, 9 + 43 + 11])
    # every other cut leaves 55 or more to someone
    assert cut(kit, kit.two_groups(), 3) == ([[0, 1, 2], [3, 4], [5, 6, 7, 7]], [40, 12 + 15 + 9 + 11, 9 + 32 + 11])
    # the two rows of one conversation cost most: 9 + 10 and 11
    assert cut(kit, kit.two_groups()[1:], 4) == ([[0, 1], [2], [3, 3], []], [9 + 19, 9 + 14, 30, 0])


def test_conversations_fewer_than_ranks_leave_some_without_work(kit):
    group = kit.group(kit.ids(12, 1), [1.0, 0.0], [2, 9], 1)
    assert cut(kit, [group], 4) == ([[0], [1], [], []], [12 + 8, 12 + 15, 0, 0])
    assert shares([], 2) == [[], []]
