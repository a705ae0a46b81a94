"""How long something has been missing, as far as this process was watching."""

from rollout_workers.fleet.liveness import LARGEST_GAP_S, Patience


def test_it_counts_from_the_last_answer():
    patience = Patience()
    assert [patience.look(now, there=False) for now in (10.0, 10.5, 12.0)] == [0, 0.5, 2]
    assert patience.look(12.5, there=True) == 0
    assert patience.look(13.0, there=False) == 0.5


def test_a_driver_that_was_stopped_does_not_blame_its_workers():
    patience = Patience()
    patience.look(0.0, there=True)
    assert patience.look(3600.0, there=False) == LARGEST_GAP_S
