"""Mistakes on the command line: exit status 2, one to three lines that name the fix, within a second or two."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.references.command_line import ouro_rl_timed

SECONDS = 2.0
"""CPU time within which a mistake must be reported."""


EVAL = ["--model", "good", "--benchmark", "arithmetic", "--out", "o"]


MISTAKES = {
    "no command": ([], ["COMMAND"]),
    "unknown command": (["trian"], ["trian", "train"]),
    "unknown option": (["train", "good.yaml", "--dryrun"], ["--dryrun"]),
    "option of a key": (
        ["train", "good.yaml", "--trainer.steps", "3"],
        ["key, written without dashes: trainer.steps=3"],
    ),
    "option of another system": (["train", "good.yaml", "--resume_from_checkpoint"], ["the option --resume"]),
    "option of another spelling": (["eval", *EVAL, "--max_new_tokens", "3"], ["did you mean --max-new-tokens?"]),
    "more workers than CPUs": (
        ["train", "good.yaml", "rollout.workers=5000"],
        ["5000 rollout workers of 1 CPUs each", "would fit"],
    ),
    "more workers for eval": (["eval", *EVAL, "--workers", "5000"], ["--workers 5000", "would fit"]),
    "override with a plus": (["train", "good.yaml", "+trainer.steps=3"], ["written without +: trainer.steps=3"]),
    "override without =": (["train", "good.yaml", "trainer.steps", "3"], ["with =, as in trainer.steps=3"]),
    "key of another system": (["train", "good.yaml", "num_generations=8"], ["here it is trainer.group_size"]),
    "no config": (["train"], ["CONFIG"]),
    "missing config": (["train", "god.yaml"], ["god.yaml", "there is good.yaml"]),
    "broken config": (["train", "broken.yaml"], ["broken.yaml", "not YAML"]),
    "config of another ending": (
        ["train", "quickstart.yml"],
        ["no such config file; there is the packaged quickstart"],
    ),
    "value that contains itself": (
        ["train", "good.yaml", "trainer=&a {steps: *a}"],
        ["override trainer", "Circular reference"],
    ),
    "number of 5000 digits": (["train", "good.yaml", f"trainer.steps={5000 * '9'}"], ["not YAML", "4300 digits"]),
    "tag of another type": (["train", "good.yaml", "run.dir=!!binary aGk="], ["not YAML", "tag:yaml.org,2002:binary"]),
    "half of a surrogate pair": (["train", "good.yaml", r'run.dir="\ud800"'], ["not YAML", "surrogates not allowed"]),
    "override with a space": (
        ["train", "good.yaml", "trainer.steps =3"],
        ["trainer.steps =3: is neither a config file nor an override", "section.key=value"],
    ),
    "override with two dots": (["train", "good.yaml", "trainer..steps=3"], ["neither a config file nor an override"]),
    "path that is empty": (["train", "good.yaml", 'run.dir=""'], ['run.dir="": run.dir: a path is empty']),
    "option that is empty": (["eval", *EVAL[:-1], ""], ["a path is empty", "shell variable"]),
    "path that is too long": (["train", "good.yaml", f"run.dir={300 * 'a'}"], ["run.dir: 'aaaa", "File name too long"]),
    "config that is too long": (["train", 300 * "a"], ["File name too long"]),
    "model that is too long": (["eval", "--model", 300 * "a", *EVAL[2:]], ["File name too long"]),
    "path with a null byte": (["train", "good.yaml", r'data.source="a\0b.jsonl"'], ["data.source", "null byte"]),
    "report into a folder": (["report", "a", "b", "--out", "folder"], ["--out folder: is a folder; give a file"]),
    "comparison into a folder": (["compare", "a", "b", "--out", "folder"], ["--out folder: is a folder; give a file"]),
    "gate into a folder": (["gate", "extract", "good", "--out", "folder"], ["--out folder: is a folder; give a file"]),
    "unknown key": (["train", "good.yaml", "trainer.group_sise=4"], ["trainer.group_sise", "trainer.group_size?"]),
    "wrong type": (["train", "good.yaml", "trainer.steps=many"], ["trainer.steps", "whole number", "many"]),
    "out of range": (["train", "good.yaml", "rollout.temperature=0"], ["rollout.temperature", "greater than 0"]),
    "group of one": (["train", "good.yaml", "trainer.group_size=1"], ["trainer.group_size", "at least 2"]),
    "batch does not divide": (
        ["train", "good.yaml", "trainer.micro_batch=60"],
        ["micro batches of 60", "micro_batch to 32"],
    ),
    "dry run of an unknown reward": (
        ["train", "good.yaml", "rewards.functions=[{name: maths}]", "--dry-run"],
        ["did you mean math?"],
    ),
    "dry run of an unknown option": (
        ["train", "good.yaml", "rewards.functions=[{name: math, kwargs: {unit: x}}]", "--dry-run"],
        ["no option 'unit'"],
    ),
    "dry run checks too": (["train", "good.yaml", "trainer.group_size=1", "--dry-run"], ["trainer.group_size"]),
    "model missing": (["train", "good.yaml", "model.path=folder/gone"], ["model.path folder/gone", "no such folder"]),
    "model without weights": (["train", "good.yaml", "model.path=no_weights"], ["no_weights", "no weights"]),
    "model without config": (["train", "good.yaml", "model.path=no_config"], ["no_config", "config.json"]),
    "model of other shapes": (
        ["train", "good.yaml", "model.path=misfit"],
        ["misfit", "model.layers.0.mlp.down_proj.weight", "[32, 48]", "[32, 64]"],
    ),
    "other architecture": (["train", "good.yaml", "model.path=llama"], ["model_type is 'llama'"]),
    "data missing": (["train", "good.yaml", "data.source=gone.jsonl"], ["data.source gone.jsonl"]),
    "data empty": (["train", "good.yaml", "data.source=empty.jsonl"], ["empty.jsonl: is empty"]),
    "data not JSON": (["train", "good.yaml", "data.source=text.jsonl"], ["text.jsonl, line 1: not JSON"]),
    "no such column": (
        ["train", "good.yaml", "data.source=rows.jsonl", "data.answer_column=gold"],
        ["'gold'", "problem, answer, completion", "data.answer_column"],
    ),
    "data of an unknown kind": (["train", "good.yaml", "data.source=a/b/c"], ["data.source a/b/c"]),
    "unknown reward": (["train", "good.yaml", "rewards.functions=[{name: mathh}]"], ["mathh", "math"]),
    "reward module missing": (
        ["train", "good.yaml", "rewards.functions=[{name: 'no.such:f'}]"],
        ["no.such:f", "cannot be imported"],
    ),
    "reward that fails": (
        ["train", "good.yaml", "rewards.functions=[{name: 'reward.py:f'}]"],
        ["reward.py:f", "nothing_of_this_name"],
    ),
    "same reward twice": (["train", "good.yaml", "rewards.functions=[{name: math}, {name: math}]"], ["two rewards"]),
    "unknown benchmark for eval": (["train", "good.yaml", "eval.source=aime"], ["eval.source aime", "math500"]),
    "run into a file": (["train", "good.yaml", "run.dir=good.yaml/x"], ["run.dir good.yaml/x", "is a file"]),
    "nothing to resume": (["train", "good.yaml", "--resume", "run.dir=runs/x"], ["--resume", "runs/x"]),
    "check": (["check", "good.yaml", "model.path=no_weights"], ["no_weights"]),
    "warmstart": (["warmstart", "warm.yaml", "stage_one.lr=0"], ["stage_one.lr"]),
    "warmstart shape": (
        ["warmstart", "warm.yaml", "model.hidden_size=100", "model.num_attention_heads=3"],
        ["hidden_size (100)"],
    ),
    "eval without model": (["eval", "--benchmark", "arithmetic", "--out", "o"], ["--model"]),
    "eval of no weights": (
        ["eval", "--model", "no_weights", "--benchmark", "arithmetic", "--out", "o"],
        ["--model no_weights"],
    ),
    "eval of a misfit": (
        ["eval", "--model", "misfit", "--benchmark", "arithmetic", "--out", "o"],
        ["[32, 48]", "[32, 64]"],
    ),
    "eval on nothing": (["eval", "--model", "good", "--benchmark", "aime", "--out", "o"], ["--benchmark aime"]),
    "eval on no file": (["eval", "--model", "good", "--benchmark", "gone.jsonl", "--out", "o"], ["gone.jsonl"]),
    "eval data empty": (
        ["eval", "--model", "good", "--benchmark", "math500", "--data", "empty.jsonl", "--out", "o"],
        ["empty.jsonl: is empty"],
    ),
    "eval depth": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--depth", "0", "--out", "o"],
        ["--depth", "'0'"],
    ),
    "eval too deep": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--depth", "2,99", "--out", "o"],
        ["--depth 99", "more than 64 loops"],
    ),
    "eval threshold": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--exit-threshold", "0.5,2", "--out", "o"],
        ["--exit-threshold", "'2'"],
    ),
    "eval top-p": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--top-p", "0", "--out", "o"],
        ["--top-p", "'0' is not a number greater than 0 and at most 1"],
    ),
    "eval processor": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--logit-processor", "mine", "--out", "o"],
        ["--logit-processor", "'mine' does not name a function"],
    ),
    "eval into a file": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--out", "good.yaml"],
        ["--out good.yaml"],
    ),
    "grade without reward": (["grade", "rows.jsonl"], ["--reward"]),
    "grade by an unknown reward": (["grade", "rows.jsonl", "--reward", "no.such:f"], ["no.such:f"]),
    "grade no file": (["grade", "gone.jsonl", "--reward", "math"], ["gone.jsonl"]),
    "grade an empty file": (["grade", "empty.jsonl", "--reward", "math"], ["empty.jsonl"]),
    "reward test with bad kwargs": (
        ["reward", "test", "math", "rows.jsonl", "--kwargs", "[1"],
        ["--kwargs [1", "not a mapping"],
    ),
    "reward test with no time": (
        ["reward", "test", "math", "rows.jsonl", "--timeout", "nan"],
        ["'nan' is not a number greater than 0"],
    ),
    "grade into another kind of file": (
        ["grade", "rows.jsonl", "--reward", "math", "--out", "o/rows.csv"],
        ["--out o/rows.csv", "give a .jsonl file"],
    ),
    "study of no name": (["study", "hopps", "--list"], ["hopps: no such study", "arithmetic, hops, walks"]),
    "rows too deep": (
        ["grade", "deep.jsonl", "--reward", "math"],
        ["deep.jsonl, line 1", "recursion", "nest the value less"],
    ),
    "rows with a huge number": (["grade", "digits.jsonl", "--reward", "math"], ["digits.jsonl, line 1", "4300 digits"]),
    "rows with no messages": (["grade", "texts.jsonl", "--reward", "math"], ["texts.jsonl, row 1", "other items"]),
    "report of nothing": (["report", "folder"], ["folder", "holds no run"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_at_once_and_in_plain_words(mistake: str, folder: Path) -> None:
    arguments, parts = MISTAKES[mistake]
    done, seconds = ouro_rl_timed(*arguments, cwd=folder)
    assert done.returncode == 2, done
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 3 and lines[0].startswith("ouro-rl"), done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr
    assert seconds < SECONDS
    assert not (folder / "runs").exists() and not (folder / "o").exists()
