"""The page of an evaluation: one self-contained HTML file with the picture, the tables and some answers.

Texts of models and of data sets are untrusted: all of them pass through `html.escape`, and nothing in the page may run
or be fetched."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.progress import short_number
from ouro_rl.evaluation.frontier_picture import draw_frontier
from ouro_rl.evaluation.out_folder import FRONTIER, PAGE, EvalFolder
from ouro_rl.run_dir.report.style import stylesheet

SHOWN = 3
"""Right answers, and as many wrong ones, that the page shows of each row."""
LONGEST = 1500
"""Characters of a completion on the page; `samples.jsonl` has all of them."""
_CSS = (
    "main>.card{margin-top:18px}.card>h2{margin-top:0}.scroll{margin-top:14px}"
    "table{border-collapse:collapse;width:100%}td,th{padding:4px 10px;text-align:right;white-space:nowrap}"
    "td:first-child,th:first-child{text-align:left}tr+tr td{border-top:1px solid var(--line)}"
    ".scroll{overflow-x:auto}.picture{background:#fff;border-radius:6px;padding:8px}.picture svg{max-width:100%;"
    "height:auto}pre{white-space:pre-wrap;overflow-wrap:anywhere}"
)
Row = Mapping[str, Any]


def write_page(folder: EvalFolder, result: Row) -> None:
    """Write the picture and the page of a finished evaluation."""
    rows = result["rows"]
    draw_frontier(rows, folder.path / FRONTIER)
    svg = (folder.path / f"{FRONTIER}.svg").read_text(encoding="utf-8")
    svg = re.sub("<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    facts = (
        f"seed {result['seed']}, {result['samples']} per problem, temperature {result['temperature']:g}, "
        f"{result['dtype']}"
    )
    body = [
        f'<header><p class="eyebrow">ouro-rl eval</p><h1>{_text(result["model"])}</h1>'
        f'<p class="muted">{_text(facts)}</p></header>',
        f'<section class="card"><h2>Accuracy against compute</h2><div class="picture">{svg}</div></section>',
    ]
    for benchmark in result["benchmarks"]:
        own = [row for row in rows if row["benchmark"] == benchmark["benchmark"]]
        timing = {one["name"]: one for one in result["timing"] if one["benchmark"] == benchmark["benchmark"]}
        body.append(_section(benchmark, own, timing))
    body.append(_examples(folder.samples()))
    write_atomically(folder.path / PAGE, [_document(result["model"], body)])


def _document(title: str, body: Iterable[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(title)} · ouro-rl eval</title>\n<style>{stylesheet(1)}{_CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(body)}</main>\n</body>\n</html>\n"
    )


def _section(benchmark: Row, rows: Sequence[Row], timing: Mapping[str, Row]) -> str:
    head = ["exit rule", "accuracy", "95 % interval", "loops/token", "loops/answer", "tokens", "cut off"]
    cells = [
        [
            row["name"],
            f"{row['accuracy']:.1%}",
            f"{row['ci_low']:.1%} to {row['ci_high']:.1%}",
            f"{row['mean_depth']:.2f}",
            f"{row['loops_per_answer']:,.1f}",
            f"{row['mean_length']:,.1f}",
            f"{row['cut_off']:.1%}",
        ]
        for row in rows
    ]
    compute = [
        [
            row["name"],
            _number(row["flops_per_answer"]),
            _number(timing[row["name"]]["seconds"]),
            _number(row["loops_per_correct"]),
            _number(row["tokens_per_correct"]),
            _number(row["flops_per_correct"]),
            _number(timing[row["name"]]["seconds_per_correct"]),
        ]
        for row in rows
    ]
    costs = ["exit rule", "FLOP/answer", "seconds", "loops/right", "tokens/right", "FLOP/right", "seconds/right"]
    parts = [_table(head, cells), _table(costs, compute)]
    if several := [row for row in rows if row["pass_at_k"]]:
        names = [f"pass@{k}" for k in several[0]["pass_at_k"]] + [f"maj@{several[0]['samples']}"]
        found = [[row["name"], *map(_estimate, [*row["pass_at_k"].values(), row["majority"]])] for row in several]
        parts.append(_table(["exit rule", *names], found))
    for column in rows[0]["by_group"]:
        parts.append(_by_group(column, rows))
    name = f"{benchmark['benchmark']}, {benchmark['problems']:,} problems"
    return f'<section class="card"><h2>{_text(name)}</h2>{"".join(parts)}</section>'


def _by_group(column: str, rows: Sequence[Row]) -> str:
    def cell(group: Row) -> str:
        share = "-" if group["accuracy"] is None else f"{group['accuracy']:.1%}"
        return f"{share} ({short_number(group['loops_per_answer'])})"

    values = [group["value"] for group in rows[0]["by_group"][column]]
    cells = [[value, *(cell(row["by_group"][column][i]) for row in rows)] for i, value in enumerate(values)]
    return _table([f"by {column} (loops per answer)", *(row["name"] for row in rows)], cells)


def _examples(samples: Sequence[Row]) -> str:
    """Some right and some wrong answers of every row."""
    shown: dict[tuple[str, str, bool], list[Row]] = {}
    for sample in samples:
        group = shown.setdefault((sample["benchmark"], sample["row"], sample["value"] == 1.0), [])
        if len(group) < SHOWN:
            group.append(sample)
    blocks = []
    for (benchmark, row, right), group in shown.items():
        inner = "".join(
            f"<p><b>{_text(one['question'])}</b></p><pre>{_text(one['completion'][:LONGEST])}</pre>"
            f'<p class="muted">{_text(one["status"])}; found {_text(one["extracted"] or "nothing")}, gold '
            f"{_text(one['gold'] or 'tests')}; {len(one['depths'])} tokens, {sum(one['depths'])} loops. "
            f"{_text(one['detail'])}</p>"
            for one in group
        )
        title = f"{benchmark}: {row}, {'right' if right else 'not right'}"
        blocks.append(f"<details><summary>{_text(title)}</summary>{inner}</details>")
    return f'<section class="card"><h2>Answers</h2>{"".join(blocks)}</section>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><tr>{top}</tr>{lines}</table></div>'


def _number(value: float | None) -> str:
    return "-" if value is None else short_number(value)


def _estimate(value: Row | None) -> str:
    return "-" if value is None else f"{value['value']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"


def _text(value: object) -> str:
    """Text for the page: escaped, without characters that HTML does not allow."""
    return html.escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", "\ufffd", str(value)))
