import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from stateset_agents.engines.cache import CachedPlan, KeyValueCache, Pool
from stateset_agents.engines.rows import begins_with, pieces_of

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("tokens", "capacity"), [(1, 256), (256, 256), (257, 512), (512, 512), (513, 1024), (4096, 4096)]
)
def test_a_slot_is_the_smallest_power_of_two_that_holds_the_row(tokens, capacity):
    assert KeyValueCache.capacity_for(tokens) == capacity
    assert KeyValueCache().take(tokens).pool.capacity == capacity


def test_slots_are_handed_out_side_by_side_and_the_lowest_free_one_first():
    pool = Pool(256)
    assert [pool.take() for _ in range(10)] == list(range(10))
    pool.give_back(7)
    pool.give_back(2)
    assert pool.taken == 8 * 256
    assert [pool.take(), pool.take(), pool.take()] == [2, 7, 10]


def test_a_pool_that_grows_keeps_what_its_rows_hold():
    pool = Pool(256)
    slots = [pool.take() for _ in range(8)]
    like = torch.zeros(1, 2, 1, 4)
    keys, values = pool.layer(0, like, like)
    for slot in slots:
        keys[slot], values[slot] = slot + 1, -slot - 1
    assert pool.take() == 8
    keys, values = pool.layer(0, like, like)
    assert keys.shape == (16, 2, 256, 4)
    assert [keys[slot].unique().item() for slot in slots] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [values[slot].unique().item() for slot in slots] == [-1, -2, -3, -4, -5, -6, -7, -8]


def test_memory_goes_when_the_last_row_of_a_pool_goes():
    cache, like = KeyValueCache(), torch.zeros(1, 2, 1, 4)
    slots = [cache.take(10), cache.take(300), cache.take(20)]
    for slot in slots:
        slot.pool.layer(0, like, like)
    assert cache.taken == 256 + 512 + 256
    for slot in slots:
        cache.give_back(slot)
    assert cache.taken == 0
    assert not any(slot.pool.keys or slot.pool.values for slot in slots)


def test_keys_and_values_may_differ_in_width():
    slot = KeyValueCache().take(5)
    keys, values = slot.pool.layer(0, torch.zeros(1, 2, 1, 24), torch.zeros(1, 2, 1, 12))
    assert (keys.shape, values.shape) == ((8, 2, 256, 24), (8, 2, 256, 12))


def random_heads(tokens, heads, generator):
    return torch.randn(1, heads, tokens, 8, generator=generator)


@pytest.mark.parametrize("window", [None, 1, 5, 12, 300])
def test_rows_in_pieces_side_by_side_attend_to_themselves_alone(window):
    """Two rows in pieces of any length, against one masked call over each whole row."""
    generator = torch.Generator().manual_seed(0)
    lengths = (20, 14)
    rows = [[random_heads(n, heads, generator) for heads in (4, 2, 2)] for n in lengths]
    cache = KeyValueCache()
    slots = [cache.take(n) for n in lengths]
    outputs = [[], []]
    passes = [[(0, 0, 7), (1, 0, 7)], [(0, 7, 1), (1, 7, 1)], [(1, 8, 4), (0, 8, 11)], [(0, 19, 1)], [(1, 12, 2)]]
    for pieces in passes:
        plan = CachedPlan([(slots[row], start, tokens) for row, start, tokens in pieces], CPU)
        query, key, value = (
            torch.cat([rows[row][part][:, :, start : start + tokens] for row, start, tokens in pieces], dim=2)
            for part in range(3)
        )
        dummies = [torch.full((1, t.shape[1], 3, 8), 9.0) for t in (query, key, value)]
        packed = [torch.cat([t, d], dim=2) for t, d in zip((query, key, value), dummies, strict=True)]
        output = plan.attend(0, *packed, scale=0.3, window=window)[0]
        assert not output[-3:].any()  # dummies see nothing
        offset = 0
        for row, _, tokens in pieces:
            outputs[row].append(output[offset : offset + tokens])
            offset += tokens
    for row, n in enumerate(lengths):
        distance = torch.arange(n)[:, None] - torch.arange(n)[None]
        mask = (distance >= 0) & (distance < (window or n))
        expected = scaled_dot_product_attention(*rows[row], attn_mask=mask, scale=0.3, enable_gqa=True)
        torch.testing.assert_close(torch.cat(outputs[row]), expected[0].transpose(0, 1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("begin", "end", "spans", "pieces"),
    [
        (0, 1, (), [(0, 1)]),
        (0, 256, (), [(0, 256)]),
        (0, 257, (), [(0, 256), (256, 257)]),
        (0, 600, (), [(0, 256), (256, 512), (512, 600)]),
        # A reply of three tokens: two single steps; its last token goes with what follows.
        (0, 12, ((4, 7),), [(0, 4), (4, 5), (5, 6), (6, 12)]),
        (6, 12, ((4, 7),), [(6, 12)]),
        # A reply of one token makes a border and no step.
        (0, 9, ((4, 5),), [(0, 4), (4, 9)]),
        (0, 9, ((2, 4), (6, 8)), [(0, 2), (2, 3), (3, 6), (6, 7), (7, 9)]),
        (0, 4, ((2, 4),), [(0, 2), (2, 3), (3, 4)]),
        (0, 300, ((1, 2),), [(0, 1), (1, 257), (257, 300)]),
    ],
)
def test_pieces_of_a_row_end_where_its_prompts_ended(begin, end, spans, pieces):
    assert pieces_of(begin, end, spans) == pieces


def test_a_row_begins_with_what_is_kept_only_if_ids_and_spans_do():
    kept = ((1, 2, 3, 4), ((2, 4),))
    assert begins_with(((1, 2, 3, 4, 5), ((2, 4),)), kept)
    assert begins_with(((1, 2, 3, 4, 5, 6), ((2, 4), (4, 6))), kept)
    assert not begins_with(((1, 2, 3), ((2, 3),)), kept)
    assert not begins_with(((1, 2, 9, 4, 5), ((2, 4),)), kept)
    assert not begins_with(((1, 2, 3, 4, 5), ()), kept)
    assert not begins_with(((1, 2, 3, 4, 5), ((2, 3),)), kept)
    assert not begins_with(((1, 2, 3, 4, 5), ((2, 4), (3, 5))), kept)
