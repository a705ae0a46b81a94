"""`ouro-rl compare`: two evaluations of the same problems, paired problem by problem. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ouro_rl.core.errors import UserError
from ouro_rl.evaluation.out_folder import EvalFolder, RowKey
from ouro_rl.evaluation.statistics import Estimate, mcnemar, paired_difference

GROUP_COLUMNS = ("subject", "level", "difficulty")
Sample = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One row of B against one row of A, over the problems that both have scored answers to; B minus A."""

    benchmark: str
    row_a: str
    row_b: str
    problems: int
    accuracy_a: float
    accuracy_b: float
    """Means over problems of the share of right samples."""
    difference: Estimate
    """Of the accuracies, with the 95% interval of a paired bootstrap over problems."""
    loops_a: float
    loops_b: float
    """Loops per answer."""
    loops_difference: Estimate
    only_a: int | None
    only_b: int | None
    """Problems that one of them alone got right; None unless both have one sample per problem."""
    p_value: float | None
    """Of McNemar's exact test; None like the two above."""
    by_group: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """The difference by the values of a column, such as the subject, where all problems have one."""


def compare(folder_a: EvalFolder, folder_b: EvalFolder, pairs: Sequence[tuple[str, str]] = ()) -> list[Difference]:
    """Every row that both evaluations have, or the `pairs` of rows (name in A, name in B); if they share no row and
    each has one, these. Raises UserError if there is nothing to compare, or if the problems are not the same."""
    a, b = _by_row(folder_a), _by_row(folder_b)
    keys = _pairs(a, b, pairs)
    if not keys:
        names = [", ".join(sorted({row for _, row in rows})) for rows in (a, b)]
        raise UserError(
            f"{folder_a.path} and {folder_b.path}: no row of one benchmark is in both (A: {names[0]}; B: {names[1]});\n"
            "  name two with --rows 'ROW OF A=ROW OF B'"
        )
    return [_difference(key_a, a[key_a], key_b, b[key_b]) for key_a, key_b in keys]


def _by_row(folder: EvalFolder) -> dict[RowKey, dict[int, list[Sample]]]:
    """The samples of every row, by problem. Questions are without the suffix that their evaluation added."""
    suffixes = {one["benchmark"]: one["prompt_suffix"] or "" for one in folder.result()["benchmarks"]}
    rows: dict[RowKey, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in folder.samples():
        asked = sample["question"].removesuffix(suffixes[sample["benchmark"]])
        rows[sample["benchmark"], sample["row"]][sample["problem"]].append({**sample, "question": asked})
    return rows


def _pairs(
    a: Mapping[RowKey, Any], b: Mapping[RowKey, Any], asked: Sequence[tuple[str, str]]
) -> list[tuple[RowKey, RowKey]]:
    if asked:
        for rows, names, which in ((a, [x for x, _ in asked], "A"), (b, [y for _, y in asked], "B")):
            known = {row for _, row in rows}
            if unknown := [name for name in names if name not in known]:
                raise UserError(f"--rows {unknown[0]}: {which} has no such row; it has {', '.join(sorted(known))}")
        benchmarks = [name for name in dict.fromkeys(key[0] for key in a) if any(key[0] == name for key in b)]
        every = [((name, x), (name, y)) for name in benchmarks for x, y in asked]
        return [(x, y) for x, y in every if x in a and y in b]
    if len(a) == len(b) == 1:
        (x,), (y,) = a, b
        return [(x, y)] if x[0] == y[0] else []
    return [(key, key) for key in a if key in b]


def _difference(
    key_a: RowKey, a: Mapping[int, Sequence[Sample]], key_b: RowKey, b: Mapping[int, Sequence[Sample]]
) -> Difference:
    shared = [problem for problem in sorted(a) if problem in b]
    for problem in shared:
        if _asked(a[problem][0]) != _asked(b[problem][0]):
            raise UserError(
                f"{key_a[0]}: problem {problem} is another one in A ({a[problem][0]['question'][:40]!r}) than in B "
                f"({b[problem][0]['question'][:40]!r});\n  evaluate both on the same data"
            )
    shares = {p: (share_a, share_b) for p in shared if (share_a := _share(a[p])) is not None
              and (share_b := _share(b[p])) is not None}  # fmt: skip
    if not shares:
        raise UserError(f"{key_a[0]}: A and B have no problem in common that both could be scored on")
    of_a, of_b = [x for x, _ in shares.values()], [y for _, y in shares.values()]
    loops_a, loops_b = [_loops(a[p]) for p in shares], [_loops(b[p]) for p in shares]
    single = all(len(rows[p]) == 1 for rows in (a, b) for p in shares)
    only_a = sum(x > y for x, y in shares.values()) if single else None
    only_b = sum(x < y for x, y in shares.values()) if single else None
    return Difference(
        benchmark=key_a[0],
        row_a=key_a[1],
        row_b=key_b[1],
        problems=len(shares),
        accuracy_a=sum(of_a) / len(of_a),
        accuracy_b=sum(of_b) / len(of_b),
        difference=paired_difference(of_a, of_b),
        loops_a=sum(loops_a) / len(loops_a),
        loops_b=sum(loops_b) / len(loops_b),
        loops_difference=paired_difference(loops_a, loops_b),
        only_a=only_a,
        only_b=only_b,
        p_value=None if only_a is None or only_b is None else mcnemar(only_a, only_b),
        by_group=_by_group(a, shares),
    )


def _asked(sample: Sample) -> tuple[str | None, str]:
    """What makes a problem the same."""
    return sample["gold"], sample["question"]


def _share(samples: Sequence[Sample]) -> float | None:
    """The share of right ones among the scored samples of a problem; None without any."""
    values = [sample["value"] for sample in samples if sample["value"] is not None]
    return sum(value == 1.0 for value in values) / len(values) if values else None


def _loops(samples: Sequence[Sample]) -> float:
    return sum(sum(sample["depths"]) for sample in samples) / len(samples)


def _by_group(
    a: Mapping[int, Sequence[Sample]], shares: Mapping[int, tuple[float, float]]
) -> dict[str, dict[str, Estimate]]:
    found = {}
    for column in GROUP_COLUMNS:
        if any(column not in a[problem][0]["groups"] for problem in shares):
            continue
        parts: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for problem, pair in shares.items():
            parts[str(a[problem][0]["groups"][column])].append(pair)
        found[column] = {
            value: paired_difference([x for x, _ in part], [y for _, y in part])
            for value, part in sorted(parts.items())
        }
    return found


def comparison_table(differences: Sequence[Difference]) -> str:
    """One line per pair of rows, and the differences by group below."""
    names = [_name(one) for one in differences]
    width = max(len("row"), *map(len, names))
    lines = [
        f"{'row':<{width}}        A        B   B - A, 95% interval (points)   loops A   loops B   only A   only B"
        "        p   problems"
    ]
    for name, one in zip(names, differences, strict=True):
        counts = [f"{'-' if count is None else count:>6}" for count in (one.only_a, one.only_b)]
        p_value = "-" if one.p_value is None else f"{one.p_value:.3g}"
        lines.append(
            f"{name:<{width}}   {one.accuracy_a:>6.1%}   {one.accuracy_b:>6.1%}   {_points(one.difference):>28}"
            f"   {one.loops_a:>7,.1f}   {one.loops_b:>7,.1f}   {counts[0]}   {counts[1]}   {p_value:>6}"
            f"   {one.problems:>8,}"
        )
    for name, one in zip(names, differences, strict=True):
        for column, values in one.by_group.items():
            lines += ["", f"{name}, by {column}"]
            lines += [f"  {value:<24} {_points(estimate):>28}" for value, estimate in values.items()]
    return "\n".join(lines)


def _name(one: Difference) -> str:
    rows = one.row_a if one.row_a == one.row_b else f"{one.row_a} -> {one.row_b}"
    return f"{one.benchmark}: {rows}"


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
