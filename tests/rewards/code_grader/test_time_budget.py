"""Time limits of a program on a busy machine."""

import pytest

from rewards.code_grader.time_budget import Budget, Times


class _Starved:
    """A child that has had `share` of a CPU, on a simulated clock."""

    def __init__(self, share: float) -> None:
        self.started = self.now = 1000.0
        self.share = share

    def monotonic(self) -> float:
        return self.now

    def processor_s(self) -> float:
        return self.share * (self.now - self.started)


@pytest.mark.parametrize(("share", "waited"), [(1.0, 0.2), (0.5, 0.4), (0.01, 0.2), (0.12, 1.0)])
def test_time_does_not_run_out_for_lack_of_a_cpu(share, waited, monkeypatch):
    child = _Starved(share)
    monkeypatch.setattr("rewards.code_grader.time_budget.time", child)

    def never(deadline: float) -> None:
        child.now = max(child.now, deadline)
        raise TimeoutError

    budget = Budget(Times(test_s=0.2, program_s=0.2))
    budget.next_test()
    with pytest.raises(TimeoutError):
        budget.wait(child, never)
    assert child.now - child.started == pytest.approx(waited, abs=0.1)
