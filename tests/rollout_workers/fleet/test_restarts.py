"""Pauses before restarts, and when the run gives up."""

from rollout_workers.fleet.restarts import DEATHS_IN_A_ROW, LONGEST_PAUSE_S, Restarts


def test_pauses_double_until_something_is_finished():
    restarts = Restarts(2)
    assert [restarts.pause(0) for _ in range(5)] == [0, 1, 2, 4, 8]
    assert restarts.pause(1) == 0, "each worker has its own"
    restarts.finished(0)
    assert restarts.pause(0) == 0
    restarts.finished(1)
    assert max(restarts.pause(0) for _ in range(20)) == LONGEST_PAUSE_S


def test_deaths_in_a_row_are_hopeless_whoever_dies():
    restarts = Restarts(3)
    for death in range(DEATHS_IN_A_ROW):
        assert not restarts.hopeless
        restarts.pause(death % 3)
    assert restarts.hopeless
    restarts.explained()
    assert not restarts.hopeless
