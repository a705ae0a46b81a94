"""The block table by hand, and that no page is lost under random events."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ouro_rl.core.errors import RunError
from ouro_rl.model.configuration_ouro import OuroConfig
from rollout_workers.engine.kv_cache import NO_PAGE, KVCache


def make_cache(loops=3, slots=4, pages=64, **limits):
    config = OuroConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, total_ut_steps=loops,
    )  # fmt: skip
    cache = KVCache(config, slots=slots, dtype=torch.float32, device=torch.device("cpu"), pages=pages, **limits)
    cache.reserve(16)
    return cache


def extend(cache, slot, loop, position):
    return cache.extend(*(torch.tensor([number]) for number in (slot, loop, position)))[0].item()


def read(cache, slot, loop, context):
    return cache.read(torch.tensor([slot]), torch.tensor([loop]), context)[0].tolist()


def test_deeper_loops_read_the_page_of_an_early_exit():
    """Position 0 leaves after loop 1, position 1 after loop 2, position 2 runs all three."""
    cache = make_cache()
    cache.open(0)
    pages = {}
    for position, depth in enumerate((1, 2, 3)):
        for loop in range(1, depth + 1):
            pages[position, loop] = extend(cache, 0, loop, position)
    for loop in (1, 2, 3):
        expected = [pages[position, min(loop, depth)] for position, depth in enumerate((1, 2, 3))]
        assert read(cache, 0, loop, 4) == [*expected, NO_PAGE]
    assert cache.owned == 1 + 2 + 3
    cache.check_integrity()
    assert cache.close([0]) == [0]
    assert cache.owned == 0
    cache.check_integrity()


def test_a_shared_prefix_stays_until_its_last_reader_closes():
    cache = make_cache()
    cache.open(3)
    cache.fill(3, 0, 5)
    for slot in (0, 1):
        cache.open(slot, prefix=3, shared=5)
        extend(cache, slot, 1, 5)
    assert cache.owned == 5 * 3 + 2
    assert read(cache, 0, 2, 5) == read(cache, 3, 2, 5)
    assert cache.close([3]) == []
    assert cache.close([0]) == [0]
    assert cache.owned == 5 * 3 + 1
    cache.check_integrity()
    assert cache.close([1]) == [1, 3]
    assert cache.owned == 0
    cache.check_integrity()


def test_pools_double_and_keep_their_contents():
    cache = make_cache(pages=4)
    cache.open(0)
    pages = torch.tensor([extend(cache, 0, 1, position) for position in range(3)])
    keys = torch.randn(3, 1, 4)
    cache.write(1, pages, keys, -keys)
    for position in range(3, 12):
        extend(cache, 0, 1, position)
    assert cache.pages == 16
    assert torch.equal(cache.keys[1][pages], keys) and torch.equal(cache.values[1][pages], -keys)
    assert cache.peak == 12
    cache.check_integrity()


def test_a_limit_is_kept_from_the_start():
    cache = make_cache(pages=4, max_pages=6)
    pools = [pool.data_ptr() for pool in [*cache.keys, *cache.values]]
    cache.open(0)
    for position in range(5):
        assert cache.available == 5 - position
        extend(cache, 0, 1, position)
    with pytest.raises(RunError, match="the KV cache is full"):
        extend(cache, 0, 1, 5)
    assert cache.pages == 6 and cache.available == 0
    assert [pool.data_ptr() for pool in [*cache.keys, *cache.values]] == pools
    assert make_cache().available == float("inf")
    cache.check_integrity()


def test_page_bytes_by_hand():
    """2 layers, 1 head of 4 for keys and values in fp32: 2 * 2 * 1 * 4 * 4 bytes."""
    cache = make_cache()
    assert cache.page_bytes == 64
    assert sum(pool.nbytes for pool in [*cache.keys, *cache.values]) == 64 * cache.pages


def test_positions_are_allocated_at_the_depths_that_ran():
    """Positions 0, 1 of a prompt at three loops, 2..4 at depths 1, 3, 2; the pages of a loop are contiguous."""
    cache = make_cache()
    cache.open(0)
    cache.fill(0, 0, 2)
    cache.fill(0, 2, 5, torch.tensor([1, 3, 2]))
    assert cache.owned == 2 * 3 + 1 + 3 + 2
    lines = [read(cache, 0, loop, 5) for loop in (1, 2, 3)]
    assert lines[0] == [1, 2, 7, 8, 9]
    assert lines[1] == [3, 4, 7, 10, 11]
    assert lines[2] == [5, 6, 7, 12, 11]
    cache.check_integrity()


def test_pages_are_freed_in_order():
    """So that the next prompt is contiguous again."""
    cache = make_cache()
    for _ in range(3):
        cache.open(0)
        cache.fill(0, 0, 4)
        assert read(cache, 0, 1, 4) == [1, 2, 3, 4] and read(cache, 0, 3, 4) == [9, 10, 11, 12]
        cache.close([0])


def test_chained_shared_prefixes():
    """A prefix of 4 positions, a prompt of 6 that shares it, and a sample that shares the prompt."""
    cache = make_cache()
    cache.open(3)
    cache.fill(3, 0, 4)
    cache.open(2, prefix=3, shared=4)
    cache.fill(2, 4, 6)
    cache.open(0, prefix=2, shared=6)
    extend(cache, 0, 1, 6)
    assert cache.owned == 3 * 4 + 3 * 2 + 1
    assert read(cache, 0, 3, 4) == read(cache, 3, 3, 4)
    assert read(cache, 0, 3, 6) == read(cache, 2, 3, 6)
    cache.check_integrity()
    assert cache.close([3]) == [] and cache.close([2]) == []
    assert cache.close([0]) == [0, 2, 3]
    assert cache.owned == 0


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), loops=st.integers(1, 5))
def test_no_page_is_lost_or_shared_by_mistake(seed, loops):
    """Random groups, exits, finishes and resets; slots 0..5 are samples, 6..11 prefixes."""
    rng = random.Random(seed)
    cache = make_cache(loops=loops, slots=12, pages=rng.choice((2, 40)))
    ahead: dict[int, int] = {}  # next position of each live sample
    prefixes: set[int] = set()
    for _ in range(60):
        event = rng.random()
        free = [slot for slot in range(6) if slot not in cache.references]
        free_prefix_slots = [slot for slot in range(6, 12) if slot not in cache.references]
        if event < 0.2 and free and free_prefix_slots:
            length = rng.randint(1, 6)
            cache.open(free_prefix_slots[0])
            cache.fill(free_prefix_slots[0], 0, length)
            for slot in free[: rng.randint(1, 3)]:
                cache.open(slot, prefix=free_prefix_slots[0], shared=length)
                ahead[slot] = length
            prefixes.add(free_prefix_slots[0])
        elif event < 0.3 and free:
            cache.open(free[0])
            ahead[free[0]] = 0
        elif event < 0.4 and prefixes:
            cache.close([prefixes.pop()])
        elif event < 0.5 and ahead:
            ended = rng.sample(sorted(ahead), rng.randint(1, len(ahead)))
            closed = cache.close(ended)
            assert set(ended) <= set(closed)
            for slot in ended:
                del ahead[slot]
        elif event < 0.51:
            cache.reset()
            ahead, prefixes = {}, set()
        else:
            rows = [slot for slot in ahead if ahead[slot] < 16]
            depths = {slot: rng.randint(1, loops) for slot in rows}
            for loop in range(1, loops + 1):
                active = torch.tensor([slot for slot in rows if depths[slot] >= loop], dtype=torch.int64)
                positions = torch.tensor([ahead[slot] for slot in active.tolist()], dtype=torch.int64)
                cache.extend(active, torch.full_like(active, loop), positions)
            for slot in rows:
                ahead[slot] += 1
        cache.check_integrity()
    cache.close([*ahead, *prefixes])
    cache.check_integrity()
    assert cache.owned == 0
