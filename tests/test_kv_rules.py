"""The KV rules, in numbers that one can check by hand."""

from ouro_rl.kv_rules import KVRule


def test_what_is_read_of_a_token_that_left_after_two_of_four_loops():
    read = {rule: [rule.version_read(loop, depth=2) for loop in (1, 2, 3, 4)] for rule in KVRule}
    assert read == {KVRule.LAST_EXITED: [1, 2, 2, 2], KVRule.FULL: [1, 2, 3, 4], KVRule.SKIP: [1, 2, None, None]}
    assert [rule.loops_run(2, max_loops=4) for rule in KVRule] == [2, 4, 2]


def test_nothing_is_read_that_was_not_written_and_no_loop_reads_a_deeper_one():
    for rule in KVRule:
        for depth in range(1, 7):
            for loop in range(1, 7):
                version = rule.version_read(loop, depth)
                assert version is None or version <= min(loop, rule.loops_run(depth, max_loops=6))
                assert loop > depth or version == loop  # whoever ran this loop is read at it, itself included
    assert [rule for rule in KVRule if rule.version_read(3, depth=2) is None] == [r for r in KVRule if r.leaves_gaps]
