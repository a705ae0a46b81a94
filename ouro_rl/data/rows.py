"""The rows of a data set: generated, from a file, from a local folder, or from the hub."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ouro_rl.config.train import DataConfig, difficulties_of
from ouro_rl.core.errors import UserError, first_line
from ouro_rl.core.jsonl import Row
from ouro_rl.core.row_files import is_row_file, read_row_file
from ouro_rl.tasks.catalog import GENERATED, generated_rows

GENERATED_LIMIT = 20_000
"""Number of generated training problems if the config sets no limit."""
SAVED_DATASET, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""Files of a folder that `datasets` wrote with `save_to_disk`: of one data set, and of several splits."""


def read_rows(config: DataConfig, *, seed: int) -> Iterable[Row]:
    """The first `limit` rows of a data set, as they are stored. `seed` determines the generated problems."""
    if config.source in GENERATED:
        count = config.limit or GENERATED_LIMIT
        return generated_rows(config.source, seed, difficulties_of(config), count, held_out=False)
    return stored_rows(config.source, config.name, config.split, config.revision, limit=config.limit)


def stored_rows(
    source: str, name: str | None = None, split: str = "train", revision: str | None = None, *, limit: int | None = None
) -> Iterable[Row]:
    """The first `limit` rows of a file, a local folder, or a hub data set (configuration `name`, at `revision`).

    Raises UserError if it cannot be loaded."""
    if is_row_file(source):
        return itertools.islice(read_row_file(Path(source)), limit)
    rows = _saved(Path(source), split) if Path(source).is_dir() else _loaded(source, name, split, revision)
    return rows if limit is None else rows.select(range(min(limit, len(rows))))


def _saved(folder: Path, split: str) -> Any:
    """A folder written by `save_to_disk`, or one with data files, as `load_dataset` reads it."""
    import datasets

    if not any((folder / name).exists() for name in (SAVED_DATASET, SAVED_SPLITS)):
        return _loaded(str(folder), None, split, None)
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"data set {folder}: is damaged ({problem});\n  copy it or write it again") from error
    if not isinstance(saved, datasets.DatasetDict):
        return saved
    if split not in saved:
        raise UserError(f"data set {folder}: has no split {split!r}; set data.split to one of {', '.join(saved)}")
    return saved[split]


def _loaded(source: str, name: str | None, split: str, revision: str | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset(source, name, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if Path(source).is_dir():
            reason = first_line(error.__cause__ or error)  # that of a file; around it is no more than that one failed
            fix = "give one file of it, or make all of them rows of the same columns"
        else:
            reason, fix = first_line(error), "check its id, data.name, data.split and data.revision"
        raise UserError(f"data set {source}: cannot be loaded ({reason});\n  {fix}") from error
