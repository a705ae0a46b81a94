"""The page of a study: README.md in the folder of its results, made from them alone."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from ouro_rl.config.study import StudyConfig
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from ouro_rl.evaluation.study.report.frontier import DRAWS, Outcomes, by_key, curve, estimate, weights
from ouro_rl.evaluation.study.report.measured import Measured, collect
from ouro_rl.evaluation.study.report.plots import Line, difficulty_plot, frontier_plot
from ouro_rl.evaluation.study.report.tables import (
    NONE,
    arms_list,
    comparison_table,
    difficulty_table,
    frontier_table,
    router_line,
    served_figures,
    served_table,
    target_table,
    training_table,
)
from ouro_rl.evaluation.study.report.targets import WINDOW

PAGE = "README.md"


def write_study_page(
    folder: Path, name: str, config: StudyConfig, outdated: Mapping[str, str], draws: int = DRAWS
) -> Path:
    """Write the page and its plots into the folder of the results. Returns the page's path.

    Raises UserError without results, or if arms were measured on different problems."""
    measured = collect(folder, name, config, outdated)
    if not measured.arms:
        raise UserError(f"{folder}: holds no result of {name} yet; run the study first")
    problems = {arm.difficulty for arm in measured.arms.values()}
    if len(problems) > 1:
        raise UserError(f"{folder}: the arms were measured on different problems; run the study again")
    _plots(measured, folder, draws)
    path = folder / PAGE
    write_atomically(path, ["\n".join(_page(measured, draws)), "\n"])
    return path


def _page(measured: Measured, draws: int) -> Iterator[str]:
    first = next(iter(measured.arms.values())).results[0]
    yield f"# Study: {measured.name}\n"
    yield (
        f"Made by `ouro-rl study configs/study/{measured.name}.yaml --report` from the JSON files beside it; nothing "
        "is typed by hand. Every arm answers the same "
        f"{len(first.difficulty)} held-out problems, greedily. In brackets: 95% intervals by a bootstrap of {draws:,} "
        "draws over problems and seeds; differences are paired, problem by problem and seed by seed.\n"
    )
    if measured.missing:
        arms = [f"{arm} (seed {', '.join(map(str, seeds))})" for arm, seeds in measured.missing.items()]
        yield f"Not measured yet: {'; '.join(arms)}.\n"
    if measured.outdated:
        yield "Measured with another config than the present one:\n"
        yield "\n".join(f"- {run}: {change}" for run, change in measured.outdated.items()) + "\n"
    yield "![Accuracy against loops per answer](frontier-loops.svg)\n"
    yield "![Accuracy against FLOPs per answer](frontier-flops.svg)\n"
    yield "## As served\n"
    yield "\n".join(served_table(measured, draws)) + "\n"
    for reference in measured.references if len(measured.arms) > 1 else ():
        yield f"## {reference} against the others\n"
        yield (
            f"Differences are {reference} minus the other arm, over the seeds of both. *At its loops*: "
            f"the Q-exit curve of {reference}, interpolated at the other arm's loops per answer, against "
            f"the other arm as served. *At the reference's loops*: {reference} as served against the best "
            "that the other arm reaches with as many loops per answer under any measured rule, or a random mixture of "
            f"two. An arm that is never so cheap has `{NONE}`. FLOPs are those of prompts and answers.\n"
        )
        yield "\n".join(comparison_table(measured, reference, draws)) + "\n"
    yield "## By difficulty\n"
    yield "![Loops per token against difficulty](difficulty.svg)\n"
    yield "\n".join(difficulty_table(measured)) + "\n"
    if (told := router_line(measured)) is not None:
        yield told
    yield "## Frontiers\n"
    yield "Accuracy and, in parentheses, loops per answer: means over seeds.\n"
    yield "\n".join(frontier_table(measured)) + "\n"
    yield "## Training\n"
    yield "\n".join(training_table(measured)) + "\n"
    if targets := list(target_table(measured)):
        yield "## Targets\n"
        yield (
            "Loops of sampled completions, against the target that the controller of the price was given; by seed. No "
            "price is charged in the free updates, with which a run begins. The overshoot is that of a "
            f"moving mean over {WINDOW} of the updates after them.\n"
        )
        yield "\n".join(targets) + "\n"
    yield "## Arms\n"
    yield "\n".join(arms_list(measured))


def _plots(measured: Measured, folder: Path, draws: int) -> None:
    lines: dict[str, list[Line]] = {"loops": [], "flops": []}
    for name, arm in measured.arms.items():
        drawn = weights(len(arm.seeds), len(arm.difficulty), draws)
        loops, accuracy = curve(arm, drawn)
        heights = accuracy[0].tolist()
        costs = {"loops": loops[0].tolist(), "flops": _mean_flops(arm)}
        # An arm that runs a fixed depth has no use for the gate, whose curve would only crowd the plot.
        joined = [] if arm.rules[0].startswith("fixed") else arm.curve_rules
        for kind, xs in costs.items():
            lines[kind].append(
                Line(
                    name=name,
                    curve=[(xs[place], heights[place]) for place in joined],
                    served=(xs[0], heights[0]),
                    interval=estimate(accuracy[:, 0]),
                )
            )
    for kind, x_label in (("loops", "loops per answer"), ("flops", "MFLOP per answer")):
        title = f"{measured.name}: accuracy against {x_label}"
        files = folder / f"frontier-{kind}"
        frontier_plot(lines[kind], x_label=x_label, y_label="accuracy on held-out problems", title=title, files=files)
    depths = {name: _depth_by_level(arm) for name, arm in measured.arms.items()}
    title = f"{measured.name}: loops per token, as served"
    oracle = _oracle_by_level(next(iter(measured.arms.values()))) if measured.has_oracle else {}
    difficulty_plot(depths, oracle=oracle, title=title, files=folder / "difficulty")


def _mean_flops(arm: Outcomes) -> list[float]:
    """MFLOP per answer of every rule, mean over seeds."""
    tables = [by_key(result) for result in arm.results]
    return [statistics.fmean(table[rule].flops_per_answer for table in tables) / 1e6 for rule in arm.rules]


def _oracle_by_level(arm: Outcomes) -> dict[int, float]:
    """Loops per token with every token at the depth that it needs, in answers of the lengths of `arm` as served."""
    assert arm.needed_loops is not None
    needed: dict[int, float] = defaultdict(float)
    tokens: dict[int, float] = defaultdict(float)
    for level, loops, length in zip(arm.difficulty, arm.needed_loops, arm.tokens[:, 0].mean(0).tolist(), strict=True):
        needed[level] += loops
        tokens[level] += length
    return {level: needed[level] / tokens[level] for level in sorted(needed)}


def _depth_by_level(arm: Outcomes) -> dict[int, float]:
    """Loops per token as served, mean over seeds."""
    figures = served_figures(arm)
    levels = sorted({int(level) for one in figures for level in one.by_difficulty})
    return {
        level: statistics.fmean(one.by_difficulty[str(level)]["loops_per_token"] for one in figures) for level in levels
    }
