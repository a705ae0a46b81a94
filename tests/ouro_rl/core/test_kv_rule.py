"""The KV rules, on examples small enough to check by hand."""

import random

import pytest
import torch

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.model.configuration_ouro import OuroConfig
from rollout_workers.engine.kv_cache import NO_PAGE, KVCache


def test_what_is_read_from_a_token_that_exited_after_two_of_four_loops():
    read = {rule: [rule.version_read(loop, depth=2) for loop in (1, 2, 3, 4)] for rule in KVRule}
    assert read == {KVRule.LAST_EXITED: [1, 2, 2, 2], KVRule.FULL: [1, 2, 3, 4], KVRule.SKIP: [1, 2, None, None]}
    assert [rule.loops_run(2, max_loops=4) for rule in KVRule] == [2, 4, 2]


def test_nothing_is_read_that_was_not_written_and_no_loop_reads_a_deeper_one():
    for rule in KVRule:
        for depth in range(1, 7):
            for loop in range(1, 7):
                version = rule.version_read(loop, depth)
                assert version is None or version <= min(loop, rule.loops_run(depth, max_loops=6))
                assert loop > depth or version == loop  # a token that ran this loop is read at it, also by itself
    assert [rule for rule in KVRule if rule.version_read(3, depth=2) is None] == [r for r in KVRule if r.leaves_gaps]


@pytest.mark.parametrize("seed", range(4))
def test_block_table_rows_with_gaps_list_the_tokens_that_ran(seed):
    """Under `skip`, random tokens of random samples run random numbers of loops; every block-table row lists, in order,
    the pages that were written for it."""
    rng = random.Random(seed)
    config = OuroConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, total_ut_steps=4
    )
    cache = KVCache(config, slots=4, dtype=torch.float32, device=torch.device("cpu"), pages=8)
    cache.reshape(32, loops=3, rule=KVRule.SKIP)
    rows: dict[int, list[list[int]]] = {}
    positions: dict[int, int] = {}
    for _ in range(120):
        slot = rng.randrange(4)
        if slot not in rows:
            cache.open(slot)
            known = rng.randrange(3)  # tokens recomputed at their own depths, after a prompt of 2 tokens
            depths = [3, 3, *rng.choices((1, 2, 3), k=known)]
            cache.fill(slot, 0, len(depths), torch.tensor(depths))
            rows[slot] = [cache.table[slot, t, : sum(d > t for d in depths)].tolist() for t in range(3)]
            positions[slot] = len(depths)
        elif rng.random() < 0.1 or positions[slot] == 32:
            assert cache.close([slot]) == [slot]
            del rows[slot]
        else:
            for loop in range(1, rng.randint(1, 3) + 1):
                arguments = [torch.tensor([x]) for x in (slot, loop, positions[slot])]
                page, context = cache.extend(*arguments)
                rows[slot][loop - 1].append(page.item())
                assert context.item() == len(rows[slot][loop - 1])
            positions[slot] += 1
        cache.check_integrity()
        for other, written in rows.items():
            for row, pages in enumerate(written):
                assert cache.table[other, row].tolist() == pages + [NO_PAGE] * (32 - len(pages))
        owned = [page for written in rows.values() for pages in written for page in pages]
        assert cache.owned == len(owned) == len(set(owned))
