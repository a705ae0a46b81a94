"""The folder of an evaluation: what was asked, the answers so far, and the results.

request.json            what was asked, with hashes of weights and problems
samples.partial.jsonl   the answers so far, in the order in which they were graded; removed at the end
samples.jsonl           all answers, in the order of the table
eval.json               the figures
frontier.png, .svg, index.html   the picture and the page

An evaluation that was interrupted goes on where it stopped. Imports no torch."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from ouro_rl.core.jsonl import Row, read_jsonl
from ouro_rl.evaluation.request import first_difference

RESULT, SAMPLES, PARTIAL, REQUEST = "eval.json", "samples.jsonl", "samples.partial.jsonl", "request.json"
FRONTIER, PAGE = "frontier", "index.html"
_AT = "at_s"
"""Of a line in the partial file: seconds since the row began, over all starts of the command."""

RowKey = tuple[str, str]
"""Benchmark and name of a row."""


class EvalFolder:
    """Paths, writers and readers. Creating the object changes nothing."""

    def __init__(self, path: Path):
        self.path = path
        self.result_path, self.samples_path = path / RESULT, path / SAMPLES
        self.partial_path, self.request_path = path / PARTIAL, path / REQUEST

    def check(self, asked: Mapping[str, Any]) -> None:
        """Raise UserError if the folder holds an evaluation that was asked for something else."""
        if not self.request_path.exists():
            if self.result_path.exists():
                raise self._refusal("its eval.json is of another version or source")
            return
        began = self.request()
        if difference := first_difference(began, {**began, **_plain(asked)}):
            raise self._refusal(difference)

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Record what is asked; raises UserError like `check`."""
        self.check(asked)
        write_atomically(self.request_path, [json.dumps(_plain(asked), indent=2), "\n"])

    def request(self) -> dict[str, Any]:
        """What was asked. Raises UserError if the file is broken."""
        return _read_json(self.request_path)

    def clear(self) -> None:
        """Remove the results of an older evaluation, and nothing else."""
        names = (RESULT, SAMPLES, PARTIAL, REQUEST, PAGE, f"{FRONTIER}.png", f"{FRONTIER}.svg")
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def is_finished(self) -> bool:
        return self.result_path.exists() and self.samples_path.exists() and self.request_path.exists()

    def answers_so_far(self) -> dict[RowKey, list[Row]]:
        """The answers of an interrupted evaluation, or of a finished one, by row, as lines of the partial file. A line
        that was cut off in writing is removed."""
        found: dict[RowKey, list[Row]] = defaultdict(list)
        if self.is_finished():
            seconds = {(one["benchmark"], one["name"]): one["seconds"] for one in self.result()["timing"]}
            for row in self.samples():
                key = row["benchmark"], row["row"]
                found[key].append(timed(row, seconds[key] or 0.0))
            return found
        if not self.partial_path.exists():
            return found
        _remove_cut_line(self.partial_path)
        for row in read_jsonl(self.partial_path, growing=True):
            found[row["benchmark"], row["row"]].append(row)
        return found

    def open_partial(self) -> IO[str]:
        return self.partial_path.open("a", encoding="utf-8")

    def finish(self, result: Mapping[str, Any], answers: Iterable[Mapping[str, Any]]) -> Path:
        """Write the results: the samples first, since `eval.json` says that all is there. Returns its path."""
        write_atomically(self.samples_path, (to_line(answer) for answer in answers))
        write_atomically(self.result_path, [json.dumps(_finite(result), indent=2, allow_nan=False), "\n"])
        self.partial_path.unlink(missing_ok=True)
        return self.result_path

    def result(self) -> dict[str, Any]:
        """`eval.json`. Raises UserError if there is none."""
        return _read_json(self.result_path)

    def samples(self) -> list[Row]:
        """All rows of `samples.jsonl`. Raises UserError if there is none."""
        return list(read_jsonl(self.samples_path))

    def _refusal(self, why: str) -> UserError:
        return UserError(f"--out {self.path}: holds another evaluation ({why});\n  give a new folder, or --overwrite")


def to_line(answer: Mapping[str, Any]) -> str:
    return json.dumps(answer, ensure_ascii=False) + "\n"


def timed(answer: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """A line of the partial file."""
    return {**answer, _AT: round(seconds, 3)}


def untimed(row: Row) -> tuple[Row, float]:
    """The answer in a line of the partial file, and its seconds."""
    return {name: value for name, value in row.items() if name != _AT}, row[_AT]


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the --out of an `ouro-rl eval`") from None
    except ValueError:
        raise UserError(f"{path}: is not JSON; remove the folder and evaluate again") from None


def _remove_cut_line(path: Path) -> None:
    """Cut a file after its last line break."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        file.truncate(end)


def _finite(value: Any) -> Any:
    """JSON data with null in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(part) for part in value]
    return value
