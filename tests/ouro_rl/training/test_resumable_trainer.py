"""A run that was killed and resumed takes the same updates as the one that was not: random cases on a stub model, whose
rollouts and loss cost nothing; the trainer, its checkpoints and transformers' loop are the real ones."""

import gc
import json
import random
import shutil
from dataclasses import dataclass

import pytest
import torch
from transformers import TrainerCallback

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Prompt
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.schedule import lr_share
from tests.references.stub_training import GROUP, config_of, stub_model, train

CASES = 200
SCHEDULES = ("constant", "linear", "cosine", "constant_with_warmup")


class Killed(Exception):
    """Stands for a SIGKILL: nothing is saved any more."""


@dataclass
class Stop(TrainerCallback):
    """A kill, or a signal that lets the update finish, after some update."""

    after: int
    kill: bool

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.after and not self.kill:
            control.should_save = control.should_training_stop = True

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.after and self.kill:
            raise Killed


@pytest.fixture
def model():
    gc.collect()
    gc.freeze()  # transformers collects garbage at each start, which takes most of the time with this many modules
    yield stub_model()
    gc.unfreeze()


def rows_of(run):
    keys = ("step", "lr", "gate/price", "reward/mean", "depth/mean", "grad_norm", "staleness/mean")
    return [tuple(row.get(key) for key in keys) for row in run.read_metrics()]


def weights_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def interrupted(model, config, prompts, stop):
    """Train until the stop, resume, and return what was done in all, without what the kill threw away."""
    run = RunDir(config.run.dir)
    before, seen = [], []
    try:
        before, trainer = train(model, config, prompts, stop=stop)
        seen = trainer.seen
    except Killed:
        before = None  # what was done up to the checkpoint is compared by the rows of metrics
    checkpoint = run.latest_checkpoint()
    done = int(checkpoint.name.removeprefix("step-")) if checkpoint else 0
    run.truncate_after(done)
    after, trainer = train(model, config, prompts, checkpoint=checkpoint)
    return done, before, seen, after, trainer


def one_case(model, folder, number):
    draw = random.Random(number)
    per_step, updates_per_batch = draw.randint(1, 3), draw.randint(1, 3)
    count = draw.randint(per_step, 3 * per_step + 1)  # an epoch is 1 to 4 batches
    steps = draw.randint(2, 9)
    staleness = draw.choice([0, updates_per_batch, 2 * updates_per_batch])
    kind = draw.choice(SCHEDULES)
    sizes = {
        "steps": steps, "prompts_per_step": per_step, "updates_per_batch": updates_per_batch, "lr_scheduler": kind,
        "max_staleness": staleness, "micro_batch": GROUP * draw.choice([1, per_step]),
        "checkpoint_every": draw.randint(1, 5), "lr_warmup": 0 if kind == "constant" else draw.randint(0, 3),
    }  # fmt: skip
    prompts = [Prompt(index=i + i // 2, token_ids=(1,), columns={}) for i in range(count)]
    straight = config_of(folder / "straight", **sizes | {"checkpoint_every": 100})  # none are needed
    calls, whole = train(model, straight, prompts)
    stop = Stop(after=draw.randint(1, steps - 1), kill=draw.random() < 0.5)
    config = config_of(folder / "resumed", **sizes)
    done, before, seen, after, resumed = interrupted(model, config, prompts, stop)
    rows = rows_of(RunDir(config.run.dir))
    assert rows == rows_of(RunDir(straight.run.dir)), sizes
    assert [row[-1] for row in rows] == [
        update - max(0, update // updates_per_batch - staleness // updates_per_batch) * updates_per_batch
        for update in range(steps)
    ]
    assert after == calls[len(calls) - len(after) :] and all(step > done for step, *_ in after)
    if before is not None:
        assert before + after == calls and seen + resumed.seen == whole.seen
    assert whole.seen[len(whole.seen) - len(resumed.seen) :] == resumed.seen
    ours, theirs = weights_of(resumed), weights_of(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs), sizes


@pytest.mark.parametrize("tenth", range(10))
def test_the_resumed_run_is_the_straight_one(model, tmp_path, tenth):
    for number in range(tenth, CASES, 10):
        one_case(model, tmp_path, number)
        shutil.rmtree(tmp_path / "straight")
        shutil.rmtree(tmp_path / "resumed")


class Break(TrainerCallback):
    """Weights that are no longer finite after the second update."""

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step == 2:
            with torch.no_grad():
                model.lm_head.weight[3, 1] = float("inf")


def test_weights_that_are_not_finite_end_the_run_and_are_never_a_checkpoint(model, tmp_path):
    config = config_of(tmp_path, steps=4, prompts_per_step=1, micro_batch=GROUP, checkpoint_every=1)
    with pytest.raises(RunError, match=r"step 2: lm_head\.weight is not finite, and no checkpoint is written"):
        train(model, config, [Prompt(index=0, token_ids=(1,))], stop=Break())
    assert [path.name for path in RunDir(tmp_path).checkpoints_dir.iterdir()] == ["step-1"]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_rates_of_both_heads_follow_the_schedule_and_the_checkpoint_agrees(model, tmp_path, kind):
    warmup = 0 if kind == "constant" else 2
    sizes = {"steps": 4, "prompts_per_step": 1, "micro_batch": GROUP, "checkpoint_every": 1, "keep_checkpoints": 9}
    config = config_of(tmp_path, **sizes, lr_scheduler=kind, lr_warmup=warmup)
    train(model, config, [Prompt(index=0, token_ids=(1,))])
    shares = [lr_share(kind, update, total=4, warmup=warmup) for update in range(5)]
    run = RunDir(tmp_path)
    assert [row["lr"] for row in run.read_metrics()] == pytest.approx([1e-3 * share for share in shares[:4]], rel=1e-12)
    for step in range(1, 5):
        groups = torch.load(run.checkpoint_path(step) / "optimizer.pt")["param_groups"]
        assert [group["lr"] / 1e-3 for group in groups] == pytest.approx([shares[step]] * len(groups))
        log = json.loads((run.checkpoint_path(step) / "trainer_state.json").read_text())["log_history"]
        assert [row["learning_rate"] for row in log] == [pytest.approx(1e-3 * shares[step - 1])]


def test_batches_ahead_of_prompts_that_are_left_out_now_are_sampled_again(model, tmp_path):
    """A lower limit on the length of prompts may leave some out when a run is resumed."""
    sizes = {"steps": 4, "prompts_per_step": 2, "micro_batch": GROUP, "max_staleness": 2, "checkpoint_every": 1}
    prompts = [Prompt(index=index, token_ids=(1,)) for index in range(6)]
    config = config_of(tmp_path, **sizes)
    calls, _ = train(model, config, prompts, stop=Stop(after=1, kill=False))
    ahead = {step: [index for at, index, _ in calls if at == step] for step in (2, 3)}
    kept = [prompt for prompt in prompts if prompt.index not in ahead[3]]
    assert not set(ahead[2]) & set(ahead[3]), "one epoch"
    again, _ = train(model, config, kept, checkpoint=RunDir(tmp_path).latest_checkpoint())
    rows = {row["step"]: row for row in RunDir(tmp_path).read_metrics()}
    assert [step for step, *_ in again] == [3, 3, 4, 4], "the batch of update 2 has all of its prompts"
    assert {index for step, index, _ in again if step == 3} <= {prompt.index for prompt in kept}
    assert [rows[step]["staleness/dropped"] for step in (2, 3)] == [2 * GROUP, 0]
