"""A miniature warm start on every task: the result is a complete checkpoint with a record of how it was made."""

import hashlib
import json
from typing import get_args

import pytest
import torch

from ouro_rl.config.loader import load_config
from ouro_rl.config.warmstart import TaskName, WarmstartConfig
from ouro_rl.core.errors import UserError
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.tasks.function_writing import CARELESS
from ouro_rl.tasks.hops import BOXES
from ouro_rl.training.warmstart import stages
from ouro_rl.training.warmstart.run import TASKS, batches, run_warmstart
from tests.references.places import REPOSITORY
from tests.references.sandboxes import needs_any
from tests.references.tiny_models import random_model
from tests.references.tiny_warmstart import config_of

TWO_OPERATIONS = {"operations": [1, 2]}


def record_of(folder):
    return json.loads((folder / "warmstart.json").read_text())


def test_every_task_of_the_config_exists():
    assert set(TASKS) == set(get_args(TaskName))


def test_arithmetic_is_learned_and_the_checkpoint_is_complete(tmp_path, capsys):
    assert run_warmstart(config_of(tmp_path, one=30, two=2, settling=2, corpus=TWO_OPERATIONS)) == tmp_path
    model, tokenizer = load_policy(str(tmp_path), torch.float32)
    record = record_of(tmp_path)
    stage_one_rows = [row for row in record["history"] if row["stage"] == "Stage I"]
    assert stage_one_rows[-1]["losses"][-1] < stage_one_rows[0]["losses"][-1] - 0.5
    assert {"fixed 1", "fixed 3", "threshold 0.5", "sample"} <= {row["name"] for row in record["figures"]}
    assert record["config"]["corpus"] == {"operations": [1, 2], "careful": 0.4}
    assert "fixed 3, 2 operations" in capsys.readouterr().out
    assert model.config.total_ut_steps == 3
    assert tokenizer.chat_template and tokenizer.eos_token == "<|im_end|>"


def test_function_writing_uses_the_same_command(tmp_path, capsys):
    needs_any()
    run_warmstart(config_of(tmp_path, one=2, task="function_writing"))
    load_policy(str(tmp_path), torch.float32)
    record = record_of(tmp_path)
    assert set(record["held_out"]) == {"sampled", "sampled depth", "greedy", "greedy depth"}
    assert json.loads(capsys.readouterr().out) == record["held_out"]
    assert record["careless"] == CARELESS and record["config"]["task"] == "function_writing"
    assert record["config"]["corpus"] == {}, "which it does not read"


def test_the_code_example_starts_from_function_writing():
    assert load_config(WarmstartConfig, [REPOSITORY / "configs/code_warmstart.yaml"]).task == "function_writing"


def test_an_unused_corpus_is_refused(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("task: function_writing\nstage_one: {steps: 1}\nstage_two: {steps: 1}\noutput: out\n")
    load_config(WarmstartConfig, [job])
    with pytest.raises(UserError, match="the task function_writing does not use corpus.careful; leave it out"):
        load_config(WarmstartConfig, [job], ["corpus.careful=0.9"])


@pytest.mark.parametrize("task,digest", [
    ("arithmetic", "1b0755b2534d3e7b"), ("function_writing", "c5297eb7604f11a1"), ("hops", "08e718228783a02d"),
    ("walks", "04cb20d5611e2352"),
])  # fmt: skip
def test_demonstrations_are_those_of_the_published_checkpoints(task, digest):
    stream = TASKS[task].demonstrations(config_of("unused", task=task), 0)
    text = "".join("\n".join(next(stream)) for _ in range(50))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_demonstrations_are_masked_to_the_answer_and_right_padded():
    tokenizer = make_tokenizer()
    batch = next(batches(config_of("unused"), tokenizer, seed=0))(6)
    assert torch.equal(batch.targets, batch.ids.unsqueeze(0)), "every loop is taught the same"
    for row, kept in zip(batch.ids, batch.mask, strict=True):
        answer = tokenizer.decode(row[kept])
        assert answer.endswith("}<|im_end|>") and "\\boxed{" in answer
        assert tokenizer.decode(row).startswith("<|im_start|>user\n")


def test_hops_teach_each_loop_its_own_answer_in_one_token():
    tokenizer = make_tokenizer(BOXES)
    batch = next(batches(config_of("unused", task="hops", corpus={"hops": [2]}), tokenizer, seed=0))(6)
    assert batch.targets.shape == (3, *batch.ids.shape) and batch.mask.sum().item() == 6 * 2
    assert torch.equal(batch.targets[-1], batch.ids)
    prompt, answers = ~batch.mask, batch.loop_targets.view(3, 6, 2)
    assert torch.equal(batch.targets[0][prompt], batch.ids[prompt]), "the question is the same"
    assert torch.equal(answers[1], answers[2]) and (answers[0, :, 0] != answers[1, :, 0]).all()
    assert (answers[:, :, 1] == tokenizer.eos_token_id).all()


@pytest.mark.parametrize("task,word", [("hops", BOXES[7]), ("walks", "a>s;")])
def test_other_tasks_use_the_same_command(task, word, tmp_path, capsys):
    run_warmstart(config_of(tmp_path, one=2, two=1, settling=1, task=task, corpus={"hops": [1, 3]}))
    _, tokenizer = load_policy(str(tmp_path), torch.float32)
    record = record_of(tmp_path)
    assert [row["name"] for row in record["figures"]] == ["fixed 1", "fixed 2", "fixed 3", "threshold 0.5", "sample"]
    assert all([part["difficulty"] for part in row["by_difficulty"]] == [1, 3] for row in record["figures"])
    assert record["config"]["corpus"] == {"hops": [1, 3]}
    assert len(tokenizer(word)["input_ids"]) == 1
    assert "by difficulty" in capsys.readouterr().out


def test_settling_teaches_the_last_loops_answer_at_every_depth(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(stages, "loop_cross_entropies", lambda logits, targets: seen.append(targets) or logits.sum(-1))
    config = config_of(tmp_path, settling=1, task="hops")
    tokenizer = make_tokenizer(BOXES)
    model = random_model(layers=1, loops=3, vocab=len(tokenizer), gate_scale=1.0)
    batch = next(batches(config, tokenizer, seed=0))(8)
    drawn = torch.randint(1, 4, batch.ids.shape)
    monkeypatch.setattr(stages, "draw_depths", lambda gate_logits: drawn)
    stages.settling(model, config, iter([lambda size: batch]))
    assert len(set(drawn[:, :-1][batch.mask[:, 1:]].tolist())) == 3
    assert torch.equal(seen[0], batch.loop_targets[-1]) and not torch.equal(seen[0], batch.loop_targets[0])
