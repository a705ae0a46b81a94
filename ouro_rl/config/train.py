"""The configuration of `ouro-rl train`: strict, frozen, checked before anything heavy is imported.

A config file is YAML; several are merged left to right, then come dotted overrides (`trainer.lr=1e-5`). Unknown keys,
wrong types and values out of range are `UserError`s that name the file, the key and the fix. See
`ouro_rl.config.loader`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ouro_rl.config.gate import GateConfig
from ouro_rl.config.probe_rules import check_probes
from ouro_rl.config.ray import RayConfig
from ouro_rl.config.rewards import RewardsConfig
from ouro_rl.config.rollout import ExitRuleConfig, RolloutConfig, Rule
from ouro_rl.config.section import SHELL_TEXT, Conflict, Section
from ouro_rl.config.trainer import TrainerConfig
from ouro_rl.core.errors import UserError
from ouro_rl.tasks.hops import MOST_HOPS

LARGEST_SEED = 2**31 - 1
"""numpy seeds have 32 bits, and each training process adds its rank."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Operations = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
Hops = Annotated[tuple[Annotated[int, Field(ge=1, le=MOST_HOPS)], ...], Field(min_length=1)]


class ModelConfig(Section):
    path: str
    """Checkpoint folder or hub id."""
    revision: str | None = None
    """Commit, tag or branch of a hub id. null: the newest. A run records the commit and keeps to it when resumed."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward passes. Master weights and optimizer states are always fp32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""


class DataConfig(Section):
    source: str = "arithmetic"
    """`arithmetic`, `hops` or `walks` (generated); a file (.jsonl, .json, .csv, .parquet); a folder that `datasets`
    saved or can load; or the hub id of a data set."""
    revision: str | None = None
    """Commit, tag or branch of a hub id. null: the newest. A run records the commit and keeps to it when resumed."""
    name: str | None = None
    """Hub configuration name."""
    split: str = "train"
    """Split of a hub data set or of a folder."""
    question_column: str = "problem"
    """Column of the question: a string or a list of chat messages; dots reach into nested columns. If the last message
    is the assistant's, the answer continues it."""
    answer_column: str | None = "answer"
    """Column of the gold answer: it becomes the column `answer`, which the `math` reward reads; dots reach into nested
    columns. null: no answer."""
    system_prompt: str | None = None
    """System message before every question. null: none."""
    prompt_suffix: str = ""
    """Text appended to the question (to the last message of the user). In this text and in `system_prompt`, given on
    the command line, the two characters `\\n` are a line break; in a file YAML's rules hold."""
    assistant_prefix: Annotated[str, SHELL_TEXT] = ""
    """Start of every answer, given as part of the prompt (`"<think>\\n"` for the Thinking checkpoints); the two
    characters `\\n` are a line break, wherever they are given. Rows that begin the answer themselves do without."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of rows, from the start. null: all."""
    order: Literal["shuffle", "sequential", "curriculum"] = "shuffle"
    """Order of the prompts: drawn anew in each epoch from `run.seed`, as in the data, or sorted by `curriculum_column`,
    smallest first. The last prompts of an epoch that do not fill an update are left out of it."""
    curriculum_column: str | None = None
    """Column of numbers or texts that `order: curriculum` sorts by."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Longer prompts are left out and counted."""
    operations: Operations = (2, 3, 4)
    """`arithmetic`: numbers of operations in a problem."""
    hops: Hops = (1, 2, 3, 4)
    """`hops`: numbers of hops in a problem; `walks`: of the most hops in a step."""

    @model_validator(mode="after")
    def _fits(self) -> DataConfig:
        if (self.order == "curriculum") != (self.curriculum_column is not None):
            raise Conflict(
                "order `curriculum` and curriculum_column belong together; set both or neither",
                "order",
                "curriculum_column",
            )
        return self


class EvalConfig(Section):
    """Held-out accuracy before, during and after training."""

    source: str | None = None
    """A benchmark's name (`ouro-rl list benchmarks`), a data file, a local folder, or the hub id of a data set. null:
    no evaluation."""
    name: str | None = None
    """Configuration of a hub data set. null: the benchmark's, or the only one."""
    split: str | None = None
    """Split of a folder or hub data set. null: the benchmark's, or `test`."""
    revision: str | None = None
    """Commit, tag or branch of a hub data set. null: the newest; `eval.json` says which commit that was."""
    question_column: str | None = None
    """Column of the question. null: the first of `problem`, `question`, `prompt`, `text` that is there."""
    answer_column: str | None = None
    """Column of the gold answer. null: `answer` or `solution`, the first that is there. Rows without one are graded by
    their tests (columns `tests`, `test_list` or `test`), with the reward `code`."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of problems, from the start. null: all."""
    exit_rule: ExitRuleConfig = ExitRuleConfig(kind="threshold", value=0.5)
    """How the depth of a token is chosen; by default Q-exit at 0.5."""
    gate_temperature: float = Field(default=1.0, gt=0)
    """Temperature of the exit gate; 1 is the checkpoint's gate, whatever temperature it is trained at."""
    kv_rule: Rule | None = None
    """KV rule. null: as in rollouts, whose min_depth and max_depth apply here too."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Maximum length of an answer, in tokens. null: as in rollouts."""
    every: int | None = Field(default=None, ge=1)
    """Updates between two evaluations during training. The weights with the highest accuracy are kept in `best/` in the
    run's folder, apart from the checkpoints. null: none during training."""
    patience: int | None = Field(default=None, ge=1)
    """Training stops after this many evaluations without a higher accuracy. null: it never stops early."""
    operations: Operations = (2, 3, 4)
    """`arithmetic`: numbers of operations in a problem."""
    hops: Hops = (1, 2, 3, 4)
    """`hops`: numbers of hops in a problem; `walks`: of the most hops in a step."""


def difficulties_of(section: DataConfig | EvalConfig) -> tuple[int, ...] | None:
    """The difficulties that a section sets for its source. None: it is not generated."""
    return {"arithmetic": section.operations, "hops": section.hops, "walks": section.hops}.get(section.source or "")


class RunConfig(Section):
    dir: Path = Path("runs/run")
    """Folder of the run; if it exists, the next free one of `dir-2`, `dir-3`, ... (not with `--resume`)."""
    rollouts: Literal["all", "none"] | Annotated[int, Field(ge=1)] = "all"
    """Which batches of rollouts are written to disk, about 80 bytes a token: `all`, `none`, or every N-th."""
    seed: Seed = 0
    """Seed of the prompt order and of every sample."""
    stall_s: float = Field(default=1800.0, gt=0)
    """If nothing gets on for so many seconds, the log says in which phase the run is, and where its threads are."""


class TrainConfig(Section):
    """`ouro-rl train`."""

    model: ModelConfig
    """The policy."""
    data: DataConfig = DataConfig()
    """The prompts to train on."""
    rollout: RolloutConfig = RolloutConfig()
    """How completions are sampled."""
    ray: RayConfig = RayConfig()
    """Where rollout actors run, and when one of them has failed."""
    rewards: RewardsConfig = RewardsConfig()
    """How completions are scored."""
    gate: GateConfig = GateConfig()
    """The exit gate as a policy."""
    trainer: TrainerConfig
    """Optimizer updates: sizes, learning rates, clipping, checkpoints."""
    eval: EvalConfig = EvalConfig()
    """Held-out accuracy before, during and after training."""
    run: RunConfig = RunConfig()
    """Folder and seed of the run."""
    log: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ()
    """Experiment trackers that get the metrics too, under the names of `metrics.jsonl`, with the config and tables of
    samples. Each needs its package (`pip install 'ouro-rl[wandb]'`) and is set up by its own environment variables."""

    @model_validator(mode="after")
    def _probes_fit(self) -> TrainConfig:
        gate, credit = self.gate, self.trainer.credit
        settings = {
            "gate.mode": gate.mode,
            "gate.credit": gate.credit,
            "gate.cost": gate.cost,
            "trainer.credit": credit,
        }
        check_probes(settings, probe_share=gate.probe_share, restricted=self.rollout.filters().restrict)
        return self

    @model_validator(mode="after")
    def _has_effect(self) -> TrainConfig:
        """Settings off their default that would silently do nothing."""
        gate, group = self.gate, self.trainer.group_size
        if gate.keep_best is not None and gate.keep_best >= group:
            text = f"gate.keep_best ({gate.keep_best}) leaves none of a group of {group} out; set it lower, or to null"
            raise Conflict(text, "gate.keep_best", "trainer.group_size")
        if gate.variety_bonus and gate.mode != "policy":
            text = f"gate.variety_bonus has no effect with gate.mode `{gate.mode}`; set it to `policy`, or drop it"
            raise Conflict(text, "gate.variety_bonus", "gate.mode")
        if gate.eta and "rao_blackwell" not in (gate.credit, self.trainer.credit):
            text = "gate.eta mixes `rao_blackwell` credit, which neither gate.credit nor trainer.credit is; set it to 0"
            raise Conflict(text, "gate.eta", "gate.credit", "trainer.credit")
        if self.trainer.importance == "sequence":
            for key, credit in (("trainer.credit", self.trainer.credit), ("gate.credit", gate.credit)):
                if credit not in ("sampled", "score"):
                    text = (
                        f"trainer.importance `sequence` has no effect on losses that {key} `{credit}` spreads over all "
                        "loops: they have the ratio of each token; set it to `token`"
                    )
                    raise Conflict(text, "trainer.importance", key)
        return self

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.gate.mode == "policy" and self.rollout.exit_rule.kind != "sample":
            raise Conflict(
                "gate.mode `policy` learns from sampled depths, but rollout.exit_rule.kind is "
                f"`{self.rollout.exit_rule.kind}`; set it to `sample`, or gate.mode to `off`",
                "gate.mode",
                "rollout.exit_rule.kind",
            )
        if len(self.rollout.anytime) >= self.trainer.group_size:
            raise Conflict(
                f"rollout.anytime fixes the depths of {len(self.rollout.anytime)} completions, which leaves none of a "
                f"group of {self.trainer.group_size} to the exit rule; raise trainer.group_size, or name fewer depths",
                "rollout.anytime",
                "trainer.group_size",
            )
        target, most = self.gate.target_depth, self.rollout.max_depth
        if target is not None and not self.rollout.min_depth <= target <= (most or target):
            raise Conflict(
                f"gate.target_depth ({target:g}) cannot be met with rollout.min_depth {self.rollout.min_depth} and "
                f"max_depth {most or 'of the model'}; set it between them",
                "gate.target_depth",
                "rollout.min_depth",
                "rollout.max_depth",
            )
        if self.trainer.max_staleness and not self.rollout.workers:
            raise Conflict(
                f"trainer.max_staleness ({self.trainer.max_staleness}) samples while the trainer updates, but with "
                "rollout.workers 0 both run in one process; set rollout.workers, or max_staleness to 0",
                "trainer.max_staleness",
                "rollout.workers",
            )
        if self.eval.every is not None and self.eval.source is None:
            text = "eval.every evaluates on eval.source, which is not set; set it, or leave eval.every out"
            raise Conflict(text, "eval.every", "eval.source")
        if self.eval.patience is not None and self.eval.every is None:
            text = "eval.patience counts evaluations during training; set eval.every, or leave it out"
            raise Conflict(text, "eval.patience", "eval.every")
        if (problem := self.rollout.bounds_problem(self.eval.exit_rule)) and self.eval.source is not None:
            raise Conflict(f"eval.exit_rule: {problem}", "eval.exit_rule", "rollout.min_depth", "rollout.max_depth")
        return self

    def check_loops(self, trained: int) -> None:
        """Raise UserError for depths that cannot be met by a model that was trained with this many loops: what the
        config alone could not tell."""
        least, most = self.rollout.min_depth, self.rollout.depth_policy().max_loops(trained)
        of_model = "" if self.rollout.max_depth else " (the model's total_ut_steps)"
        if least > most:
            raise UserError(
                f"rollout.min_depth {least} is not in 1..max_depth, which is {most}{of_model}: "
                "lower min_depth or set max_depth"
            )
        target = self.gate.target_depth
        if target is not None and target > most:
            raise UserError(
                f"gate.target_depth {target:g} is more than the {most} loops that a token runs at most{of_model}: "
                "lower it, or raise rollout.max_depth"
            )
        if problem := self.rollout.anytime_problem(trained):
            raise UserError(f"rollout.{problem}")
        rules = {"rollout": self.rollout.exit_rule} | (
            {} if self.eval.source is None else {"eval": self.eval.exit_rule}
        )
        for section, rule in rules.items():
            if problem := self.rollout.bounds_problem(rule, trained):
                raise UserError(f"{section}.exit_rule: {problem}")
