"""Output of results: the JSON file and the table on the terminal. The Markdown page is made from the JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ouro_rl.bench.predictions import FIGURES, Figure
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError

SCHEMA = 2
"""Incremented when keys of the JSON change their names or meanings."""
RATIOS = "spread"
"""JSON key of the median, minimum and maximum of each ratio."""


def assemble(
    name: str, sections: Mapping[str, Mapping[str, Any]], *, machine: Mapping[str, Any], sizes: Mapping[str, Any],
    seconds: float, quick: bool,
) -> dict[str, Any]:  # fmt: skip
    """The JSON: the medians of all ratios at the top level, then their spreads, the predictions, and the sections with
    raw figures."""
    spreads = {key: value for section in sections.values() for key, value in section.get("ratios", {}).items()}
    medians = {key: value["median"] for key, value in spreads.items()}
    measured = {key: medians[key] for key in FIGURES if key in medians}
    return {
        "benchmark": name,
        "schema": SCHEMA,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "seconds": round(seconds, 1),
        "machine": dict(machine),
        "sizes": dict(sizes),
        **medians,
        "predicted": {key: FIGURES[key].predicted for key in measured},
        "measured": measured,
        RATIOS: spreads,
        **{
            key: {part: value for part, value in section.items() if part != "ratios"}
            for key, section in sections.items()
        },
    }


def write_json(results: Mapping[str, Any], path: Path) -> None:
    write_atomically(path, [json.dumps(results, indent=1), "\n"])


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that `write_json` wrote; raises UserError for any other file."""
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct the path") from None
    except ValueError:
        raise UserError(f"{path}: is not JSON; give a file of `ouro-rl bench NAME --json FILE`") from None
    if not isinstance(results, dict) or "benchmark" not in results or "machine" not in results:
        raise UserError(f"{path}: is not a file of `ouro-rl bench NAME --json FILE`; give one")
    if results.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: is from another version of the benchmarks; measure again with `ouro-rl bench NAME --json FILE`"
        )
    return results


# --- the table --------------------------------------------------------------------------------------------------------


def table(results: Mapping[str, Any]) -> str:
    """Table for a terminal: one line per ratio, then tokens/s."""
    lines = []
    rows = figure_rows(results)
    if rows:
        rows = [("", "measured", "min..max", "predicted", "required / target / stretch"), *rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
    for name, tokens in speeds(results).items():
        lines.append(f"{name:>22}  {tokens}")
    return "\n".join(lines)


def figure_rows(results: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """(words, measured, spread, predicted, required values) of each measured ratio."""
    rows = []
    for key, figure in FIGURES.items():
        if key not in results:
            continue
        found = results[RATIOS][key]
        rows.append((
            figure.words,
            show(figure, found["median"]),
            f"{show(figure, found['least'])}..{show(figure, found['greatest'])}" if found["count"] > 1 else "-",
            show(figure, figure.predicted),
            bars(figure),
        ))  # fmt: skip
    return rows


def bars(figure: Figure) -> str:
    """The required, target and stretch values of a figure."""
    return " / ".join(show(figure, bar) for bar in (figure.least, figure.target, figure.stretch))


def show(figure: Figure, value: float) -> str:
    """A value of a figure, formatted with its unit."""
    return f"{100 * value:.1f} %" if figure.percent else f"{value:.2f}x" if figure.larger_is_better else f"{value:.3f}"


def speeds(results: Mapping[str, Any]) -> dict[str, str]:
    """Tokens/s of each run of `rollout`, in words."""
    runs = results.get("rollout", {}).get("runs", {})
    return {
        name: f"{run['decode_tokens_per_second']:8.1f} tokens/s while decoding, "
        f"{run['tokens_per_second']:8.1f} over the whole call"
        + (f", mean depth {run['mean_depth']:.2f}" if "mean_depth" in run else "")
        for name, run in runs.items()
    }
