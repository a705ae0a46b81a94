"""The Python interface: `ouro_rl.load`, `ouro_rl.grade`, `ouro_rl.train`. See docs/python.md.

Everything here is also a command; these are the few lines for a notebook or a script."""

from __future__ import annotations

import inspect
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from ouro_rl.cli.preflight.files import check_train_files
from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.rollout import Prompt, Rollout
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams
from ouro_rl.data.prompts import ChatFormat, render
from ouro_rl.evaluation.evaluate import requests_for
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.policy.exit_gate import check_depth_policy
from ouro_rl.model.tokenizer import completion_texts, stop_token_ids
from ouro_rl.run_dir.run_dir import RunDir
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rewards.verdict import Verdict
from rollout_workers.pool import RolloutPool, make_pool

Q_EXIT = ExitRule(kind="threshold", value=0.5)
"""The exit rule of `generate` unless one is given."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer."""

    text: str
    """Without the token that ended it."""
    rollout: Rollout
    """Token ids, log-probs, and the depth of every token."""

    @property
    def depths(self) -> tuple[int, ...]:
        return self.rollout.depths


class Policy:
    """A checkpoint in the rollout engine. A context manager: leaving it ends its workers."""

    def __init__(self, model: Any, tokenizer: Any, pool: RolloutPool):
        self.model, self.tokenizer, self.pool = model, tokenizer, pool

    def generate(
        self,
        questions: Sequence[Any],
        *,
        samples: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        exit_rule: ExitRule = Q_EXIT,
        max_depth: int | None = None,
        seed: int = 0,
        system_prompt: str | None = None,
        prompt_suffix: str = "",
        assistant_prefix: str = "",
    ) -> list[list[Completion]]:
        """For each question (a string, or a list of chat messages) `samples` completions, by the engine that training
        uses. temperature 0: greedy. Raises UserError for what does not fit the model."""
        chat = ChatFormat(system_prompt=system_prompt, prompt_suffix=prompt_suffix, assistant_prefix=assistant_prefix)
        prompts = self._prompts(questions, chat)
        params = SamplingParams(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            exit_rule=exit_rule,
            stop_token_ids=stop_token_ids(self.tokenizer, (), "stop_token_ids"),
            depth_policy=DepthPolicy(max_depth=max_depth),
        )
        check_depth_policy(params.depth_policy, exit_rule, self.model.config.total_ut_steps)
        rollouts = self.pool.rollout(requests_for(prompts, samples, seed), params)
        texts = completion_texts(self.tokenizer, rollouts)
        found = [Completion(text=text, rollout=rollout) for text, rollout in zip(texts, rollouts, strict=True)]
        return [found[start : start + samples] for start in range(0, len(found), samples)]

    def _prompts(self, questions: Sequence[Any], chat: ChatFormat) -> list[Prompt]:
        prompts = render([(question, {}) for question in questions], self.tokenizer, chat, "generate")
        if len(prompts) < len(questions):
            raise UserError("generate: a question is empty; leave it out")
        return prompts

    def close(self) -> None:
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(model: str | Path, *, revision: str | None = None, dtype: str = "float32", workers: int = 0) -> Policy:
    """The checkpoint of a folder or hub id, ready to generate; `workers` Ray actors, or 0 for this process."""
    network, tokenizer = load_policy(str(model), getattr(torch, dtype), revision)
    pool = make_pool(workers, network.config.to_dict(), EngineConfig(dtype=dtype))
    pool.publish(network.state_dict(), 0)
    return Policy(network, tokenizer, pool)


def grade(
    completions: Sequence[Any],
    answers: Sequence[Any],
    *,
    reward: str = "math",
    prompts: Sequence[Any] = (),
    **kwargs: Any,
) -> list[Verdict]:
    """The verdict of a reward (a built-in name, `module.path:function` or `file.py:function`) on each completion, with
    value, status and reason. answers[i] is the gold answer of completions[i]; `kwargs` are the reward's options."""
    spec = RewardSpec(reward, kwargs=kwargs)
    with Scorer([spec], workers=2) as scorer:
        asked = list(prompts) or [""] * len(completions)
        scores = scorer.score(asked, completions, {"answer": list(answers)})
    return [score.verdicts[spec.label] for score in scores]


def train(
    config: str | Path,
    *overrides: str,
    run_dir: str | Path,
    reward: Callable[..., Any] | str | None = None,
) -> dict[str, Any]:
    """Train by a config (a file, or the name of a packaged one) with overrides (`section.key=value`), in a new folder.
    Returns what `summary.json` holds: held-out accuracy and depth before and after, and more.

    reward: a function with TRL's signature, or a reward's name, in place of the config's rewards. The function runs in
    a process of its own, which imports the file that defines it; one from a notebook is written to a file first, so it
    must import inside of it what it needs. Raises UserError for a mistake, RunError if the run was stopped."""
    folder = Path(run_dir)
    if folder.exists():
        raise UserError(f"run_dir {folder}: exists; give a new folder")
    given = [] if reward is None else [f"rewards.functions=[{{name: {reward_name(reward)!r}}}]"]
    loaded = load_config(TrainConfig, [config], [*overrides, *given, f"run.dir={folder}"], must_exist=True)
    check_train_files(loaded)
    from ouro_rl.launch import run_training  # TRL is slow to import, and only needed here

    if status := run_training(loaded, False):
        raise RunError(f"training in {folder} was stopped (exit status {status}); resume it with --resume")
    return RunDir(folder).read_summary() or {}


def reward_name(reward: Callable[..., Any] | str) -> str:
    """The name under which a process of its own finds a function: its file and its own name. Raises UserError for a
    function that is not defined at the top of a file."""
    if isinstance(reward, str):
        return reward
    name = getattr(reward, "__name__", None)
    if name is None or name == "<lambda>" or getattr(reward, "__qualname__", name) != name:
        raise UserError(f"reward {reward!r}: must be a function at the top level of a file; define it with `def` there")
    source = inspect.getsourcefile(reward)
    if source is not None and Path(source).is_file():
        return f"{Path(source).absolute()}:{name}"
    try:
        text = textwrap.dedent(inspect.getsource(reward))
    except OSError:
        raise UserError(f"reward {name}: its source is not to be found; define it in a file, and import it") from None
    file = Path(tempfile.mkdtemp(prefix="ouro_rl_reward_")) / f"{name}.py"
    file.write_text(text, encoding="utf-8")
    return f"{file}:{name}"
