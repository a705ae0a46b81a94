"""Rows from files and folders, and what is asked of the hub."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from ouro_rl.cli.preflight.files import check_benchmark, check_data
from ouro_rl.config.loader import load_config
from ouro_rl.config.train import DataConfig, TrainConfig
from ouro_rl.core.errors import UserError
from ouro_rl.data.prompts import load_benchmark, load_prompts
from ouro_rl.data.rows import read_rows
from ouro_rl.model.tiny_tokenizer import make_tokenizer

ROWS = [{"problem": f"{n}+1", "answer": str(n + 1)} for n in range(5)]
TOKENIZER = make_tokenizer()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the same rows in every form; the library's cache is apart."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "data/saved")
    datasets.DatasetDict({"train": saved, "test": saved.select([4])}).save_to_disk(tmp_path / "data/splits")
    (tmp_path / "data/files").mkdir()
    (tmp_path / "data/files/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "data/rows.json").write_text(json.dumps(ROWS))
    (tmp_path / "data/rows.csv").write_text(
        "problem,answer\n" + "".join("{problem},{answer}\n".format(**r) for r in ROWS)
    )
    saved.to_parquet(tmp_path / "data/rows.parquet")
    return tmp_path / "data"


@pytest.mark.parametrize("source", ["saved", "splits", "files", "rows.json", "rows.csv", "rows.parquet"])
def test_local_data_of_every_form(data: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is found beside the config and becomes absolute; check and training agree on what it is."""
    (data / "job.yaml").write_text(f"model: {{path: x}}\ntrainer: {{steps: 1}}\ndata: {{source: {source}, limit: 3}}\n")
    config = load_config(TrainConfig, [data / "job.yaml"]).data
    assert config.source == str(data / source)
    check_data(config)
    assert [dict(row) for row in read_rows(config, seed=0)] == ROWS[:3]
    assert [prompt.columns["answer"] for prompt in load_prompts(config, TOKENIZER, seed=0)] == ["1", "2", "3"]


def test_benchmarks_are_read_the_same_way(data: Path) -> None:
    for source, count in (("rows.parquet", 5), ("rows.csv", 5), ("splits", 1)):
        check_benchmark(str(data / source), None, key="--benchmark")
        assert len(load_benchmark(str(data / source), tokenizer=TOKENIZER)) == count
    columns = {"eval.question_column": "question"}
    with pytest.raises(UserError, match="no column 'question'.*\n.*set eval.question_column"):
        check_benchmark(str(data / "rows.csv"), None, key="eval.source", columns=columns)
    swapped = load_benchmark(
        str(data / "rows.csv"), tokenizer=TOKENIZER, question_column="answer", answer_column="problem"
    )
    assert swapped[0].columns["answer"] == "0+1"


def test_what_is_not_there(data: Path) -> None:
    (data / "empty").mkdir()
    (data / "rows.txt").write_text("{}")
    for source, part in (
        ("gone/", "no such folder"),
        ("gone.txt", "no such folder"),
        ("rows.txt", "rows.txt: its name does not say what it holds; give a .jsonl"),
        ("empty", "the folder is empty"),
        ("gone.csv", "cannot be read"),
    ):
        with pytest.raises(UserError, match=part):
            check_data(DataConfig(source=str(data / source)))
    with pytest.raises(UserError, match="no split 'dev'; set data.split to one of train, test"):
        read_rows(DataConfig(source=str(data / "splits"), split="dev"), seed=0)
    with pytest.raises(UserError, match="data.revision v1: .* is not on the hub"):
        check_data(DataConfig(source=str(data / "saved"), revision="v1"))


def test_a_folder_of_files_that_do_not_go_together(data: Path) -> None:
    (data / "mixed").mkdir()
    (data / "mixed" / "a.jsonl").write_text('{"problem": "1", "answer": "1"}\n')
    (data / "mixed" / "b.jsonl").write_text('{"problem": "1", "answer"\n')
    with pytest.raises(UserError, match=r"mixed: cannot be loaded \(.*JSON.*\);\n  give one file of it"):
        list(read_rows(DataConfig(source=str(data / "mixed")), seed=0))


@pytest.mark.parametrize("content", [b"{", b""])
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_data_set_is_named(data: Path, name: str, content: bytes) -> None:
    (data / "saved" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"data set .*saved: is damaged \(\w+: .*\);\n  copy it or write it again"):
        list(read_rows(DataConfig(source=str(data / "saved")), seed=0))


def test_a_data_set_without_its_state_is_named(data: Path) -> None:
    (data / "saved/state.json").write_text("{}")
    with pytest.raises(UserError, match=r"is damaged \(KeyError: "):
        read_rows(DataConfig(source=str(data / "saved")), seed=0)


def test_a_number_that_is_not_one_is_null(tmp_path: Path) -> None:
    """As pandas stores a missing number in a column of floats."""
    (tmp_path / "rows.json").write_text('[{"problem": "1", "answer": NaN}]')
    with pytest.raises(UserError, match="row 1: column 'answer' is null"):
        load_prompts(DataConfig(source=str(tmp_path / "rows.json")), TOKENIZER, seed=0)


def test_a_null_is_distinguished_from_a_missing_column(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"problem": "1", "answer": None, "meta": {"gold": None}}]))
    config = DataConfig(source=str(tmp_path / "rows.json"))
    for look in (lambda: check_data(config), lambda: load_prompts(config, TOKENIZER, seed=0)):
        with pytest.raises(UserError, match="column 'answer' is null;\n.*leave such rows out"):
            look()
    nested = config.model_copy(update={"answer_column": "meta.gold"})
    with pytest.raises(UserError, match="column 'meta.gold' is null"):
        check_data(nested)
    with pytest.raises(UserError, match="there is no column 'meta.answer', only problem, answer, meta"):
        check_data(config.model_copy(update={"answer_column": "meta.answer"}))


def test_the_revision_is_requested_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    rows = datasets.Dataset.from_list(ROWS)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.update(kwargs) or rows)
    read_rows(DataConfig(source="org/name", revision="v1.0"), seed=0)
    assert asked == {"split": "train", "revision": "v1.0"}
