"""The page and the picture of an evaluation, from made-up answers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ouro_rl.evaluation.frontier_picture import kind_of, lines_of
from ouro_rl.evaluation.out_folder import EvalFolder
from ouro_rl.evaluation.page import LONGEST, write_page
from ouro_rl.evaluation.rows import row_of
from tests.references.answers import make_answer

EVIL = "</script><img src=x onerror=alert(1)>\x00 & <b>"


def finished(path: Path) -> tuple[EvalFolder, dict]:
    rules = {"fixed 1": 1, "fixed 4": 4, "sample": 2}
    answers = {
        rule: [
            make_answer(
                p, k, row=rule, value=float((p + k) % 3 != 0), depths=(depth,) * 5, question=EVIL,
                completion=EVIL + "x" * 2 * LONGEST, detail=EVIL, groups={"subject": f"<i>{p % 2}"},
            )
            for p in range(6) for k in range(2)
        ]
        for rule, depth in rules.items()
    }  # fmt: skip
    rows = [asdict(row_of(part)) for part in answers.values()]
    timing = [
        {"benchmark": "made up", "name": row["name"], "seconds": 2.5, "seconds_per_correct": None} for row in rows
    ]
    result = {
        "model": EVIL, "seed": 0, "samples": 2, "temperature": 1.0, "dtype": "float32", "rows": rows, "timing": timing,
        "benchmarks": [{"benchmark": "made up", "problems": 6}],
    }  # fmt: skip
    path.mkdir()
    folder = EvalFolder(path)
    folder.finish(result, [answer.to_dict() for part in answers.values() for answer in part])
    write_page(folder, folder.result())
    return folder, result


def test_the_page_stands_alone_and_texts_are_escaped(tmp_path: Path) -> None:
    folder, _ = finished(tmp_path / "out")
    page = (folder.path / "index.html").read_text()
    assert "<img" not in page and "<script" not in page and "<i>" not in page and "\x00" not in page
    assert page.count("http") == page.count("http://www.w3.org") + page.count("http-equiv"), "nothing to fetch"
    assert "default-src 'none'" in page and "pass@2" in page and "by subject" in page and "maj@2" in page
    assert len(page) < 200_000, "long completions are cut"


def test_the_picture_has_the_same_bytes_for_the_same_figures(tmp_path: Path) -> None:
    folders = [finished(tmp_path / name)[0].path for name in ("a", "b")]
    for name in ("frontier.svg", "frontier.png", "index.html"):
        one, other = ((folder / name).read_bytes() for folder in folders)
        assert one == other and len(one) > 1000


def test_rows_of_one_kind_of_rule_are_a_line() -> None:
    names = ["fixed 4", "fixed 1", "threshold 0.5, 16 tokens", "threshold 0.9, 16 tokens", "sample"]
    rows = [{"name": name, "loops_per_answer": -index} for index, name in enumerate(names)]
    lines = lines_of(rows)
    assert {name: [row["name"] for row in line] for name, line in lines.items()} == {
        "fixed": ["fixed 1", "fixed 4"],
        "threshold, 16 tokens": ["threshold 0.9, 16 tokens", "threshold 0.5, 16 tokens"],
        "sample": ["sample"],
    }
    assert kind_of("fixed 4, 60 loops") == "fixed, 60 loops"
