"""What `ouro-rl eval` is asked to do. Imports no torch, so that it can be compared with an older result at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.sampling_params import ExitKind, ExitRule

FORMAT = ("system_prompt", "prompt_suffix", "assistant_prefix")
OF_EVAL = (
    "source", "name", "split", "revision", "limit", "question_column", "answer_column", "operations", "hops",
    "max_new_tokens", "gate_temperature", "kv_rule",
)  # fmt: skip
OF_ROLLOUT = (
    "max_new_tokens", "top_k", "top_p", "min_p", "logit_processors", "stop_token_ids", "stop_strings", "kv_rule",
    "min_depth", "max_depth", "exact", "thinking_budget", "thinking_closing",
)  # fmt: skip
"""Keys of the config that change answers; sizes of batches and numbers of workers do not."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One benchmark."""

    config: TrainConfig
    """Problems, prompt format, sampling and engine: a run's, with the options of the command line."""
    run: str | None = None
    """Where the config comes from. None: from no run."""
    data_file: Path | None = None
    """File with the benchmark's problems. None: they come from the hub."""

    @property
    def benchmark(self) -> str:
        assert self.config.eval.source is not None, "evaluation_config requires it"
        return self.config.eval.source


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    model: str
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    asks: tuple[Ask, ...]
    out: Path
    """Folder for the results."""
    depths: tuple[int, ...] = ()
    """Fixed numbers of loops, for both prompt and completion; may exceed the number the model was trained with."""
    thresholds: tuple[float, ...] = ()
    sample_gate: bool = False
    confidence: tuple[float, ...] = ()
    entropy: tuple[float, ...] = ()
    kl: tuple[float, ...] = ()
    """Levels of the rules that read the LM head after every loop (`ouro_rl.model.policy.read_out`)."""
    token_budgets: tuple[int, ...] = ()
    """Maximum lengths to compare, ascending, if there are several; the last one is sampled with."""
    loop_budgets: tuple[int, ...] = ()
    """Maximum sums of depths of an answer to compare."""
    samples: int = 1
    temperature: float | None = None
    """None: greedy with one sample, 1 with more."""
    workers: int = 0
    seed: int = 0
    dtype: str | None = None
    """None: the run's; without a run bfloat16 on a GPU, float32 on a CPU."""
    own_length: bool = False
    """Whether the maximum length was given with the request."""

    def rules(self, ask: Ask) -> tuple[ExitRule, ...]:
        """The exit rules to measure, in the order of the table; the config's if none is asked for."""
        levels: tuple[tuple[ExitKind, tuple[float, ...]], ...] = (
            ("fixed", self.depths),
            ("threshold", self.thresholds),
            ("confidence", self.confidence),
            ("entropy", self.entropy),
            ("kl", self.kl),
        )
        asked = [ExitRule(kind=kind, value=value) for kind, values in levels for value in values]
        asked += [ExitRule(kind="sample")] if self.sample_gate else []
        return tuple(asked) or (ask.config.eval.exit_rule.rule(),)

    def record(self) -> dict[str, Any]:
        """Everything that answers depend on and that is known before the model is loaded, as JSON data."""
        return {
            "model": self.model,
            "revision": self.revision,
            "benchmarks": [self._of_benchmark(ask) for ask in self.asks],
            "token_budgets": list(self.token_budgets),
            "loop_budgets": list(self.loop_budgets),
            "samples": self.samples,
            "temperature": self.temperature,
            "seed": self.seed,
            "dtype": self.dtype,
        }

    def _of_benchmark(self, ask: Ask) -> dict[str, Any]:
        config = ask.config.model_dump(mode="json")
        return {
            **{f"eval.{name}": config["eval"][name] for name in OF_EVAL},
            **{f"data.{name}": config["data"][name] for name in FORMAT},
            **{f"rollout.{name}": config["rollout"][name] for name in OF_ROLLOUT},
            "data_file": None if ask.data_file is None else str(ask.data_file.absolute()),
            "rules": [rule.label() for rule in self.rules(ask)],
            "rewards": [graded_by(reward) for reward in config["rewards"]["functions"]],
        }


def graded_by(reward: dict[str, Any]) -> dict[str, Any]:
    """A reward's name and options: what else a config says of it does not change a grade."""
    return {"name": reward["name"], "kwargs": reward["kwargs"]}


def first_difference(before: Any, now: Any, key: str = "") -> str | None:
    """The first place where two records differ, in words; None if they are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        parts = [(f"{key}.{name}" if key else name, before.get(name), now.get(name)) for name in {**before, **now}]
    elif isinstance(before, list) and isinstance(now, list):
        parts = [(f"{key}[{i}]", a, b) for i, (a, b) in enumerate(itertools.zip_longest(before, now))]
    else:
        return None if before == now else f"{key} was {_short(before)} and is {_short(now)}"
    return next((found for name, a, b in parts if (found := first_difference(a, b, name))), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
