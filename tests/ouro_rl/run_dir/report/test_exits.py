import pytest

from ouro_rl.run_dir.report.exits import exit_charts, exits_of, kind_of_token
from ouro_rl.run_dir.report.samples import StepSamples


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<|im_end|>", "special"), ("<think>", "special"), ("</think>", "special"), ("\n\n", "line break"),
        ("  ", "space"), ("\\boxed{", "TeX command"), (" 12", "number"), ("3.5", "number"), (" Hello", "word"),
        ("naïve", "word"), ("don't", "word"), ("+", "symbol"), ("x2", "symbol"), ("<", "symbol"), ("", "symbol"),
    ],
)  # fmt: skip
def test_kinds_of_tokens(text, kind):
    assert kind_of_token(text) == kind


def step(number: int, *records: tuple) -> StepSamples:
    return StepSamples(step=number, groups=[[{"tokens": t, "depths": d} for t, d in records]], whole=True)


def test_tokens_without_text_or_depth_do_not_count():
    one = step(1, (["a", "b"], [1, 0]), (None, [1]), (["a"], [1, 2]))
    assert exits_of(one) == [("a", 0.0, 1)]


def test_the_first_and_the_last_step_are_compared():
    steps = [
        step(1, (["1", "a"], [2, 4])),
        step(5, (["1", "a"], [1, 1])),
        step(9, (["1", "2", "\n", "a"], [1, 2, 3, 4])),
    ]
    by_kind, by_place = exit_charts(steps, 4)
    assert by_kind.caption == (
        "Mean loops per token, step 1 → step 9, and tokens in the last: line break 3.00 (1), "
        "number 2.00 → 1.50 (2), word 4.00 → 4.00 (1)."
    )
    assert "step 1: 2.00 at the start, 4.00 at the end; step 9: 1.00 at the start, 4.00 at the end" in by_place.caption
    assert "var(--d4)" in by_kind.svg and "step 9" in by_kind.svg and "step 5" not in by_kind.svg


def test_without_tokens_there_is_no_chart():
    assert exit_charts([], 4) == [] and exit_charts([step(1, (None, [1]))], 4) == []
