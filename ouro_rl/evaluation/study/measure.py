"""Measures one checkpoint of a study under several exit rules, problem by problem.

Its own process, started by the runner: `python -m ouro_rl.evaluation.study.measure FOLDER` reads `measure.yaml` (a
training config) and `measure.json` from the folder, and writes `figures.json`. A study answers by the checkpoint's
gate, so nothing here depends on how it was trained."""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import OuroRLError, UserError
from ouro_rl.core.own_names import pin_own_packages
from ouro_rl.core.rollout import Prompt
from ouro_rl.core.sampling_params import ExitRule
from ouro_rl.core.summary_stats import depth_shares
from ouro_rl.evaluation.answers import rollout_flops
from ouro_rl.evaluation.study.files import CONFIG_FILE, FIGURES_FILE, TASK_FILE
from ouro_rl.evaluation.under_rules import RuleAnswers, answers_under
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.tokenizer import completion_texts
from ouro_rl.run_dir.study_result import RuleFigures, label_of

_LINE = re.compile(r"^([^=\n]*\d)=", re.MULTILINE)
_OPERATOR = re.compile(r"[-+*]")


def measure(
    config: TrainConfig, model_path: str, rules: Sequence[ExitRule], *, difficulty: str, seed: int
) -> dict[str, Any]:
    """The figures of a checkpoint under each of `rules`, and the difficulty of each problem: what
    `StudyResult.rules`, `.difficulty` and `.needed_loops` hold.

    `difficulty`: the column that has it. `seed`: of rules that sample. Raises UserError if a problem has no such
    column, or if a rule does not fit the model."""
    answers = answers_under(config, model_path, rules, seed=seed)
    levels = [level_of(prompt, difficulty) for prompt in answers.prompts]
    lines = config.data.source == "arithmetic"
    figures = [
        figures_of(found, levels, answers.shape, answers.tokenizer if lines else None) for found in answers.rules
    ]
    needed = [prompt.columns.get("needed_loops") for prompt in answers.prompts]
    return {
        "difficulty": levels,
        "needed_loops": None if None in needed else needed,
        "rules": [asdict(each) for each in figures],
    }


def level_of(prompt: Prompt, column: str) -> int:
    """The difficulty of a problem. Raises UserError unless the column holds a whole number."""
    value = prompt.columns.get(column)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(
            f"evaluation.difficulty: problem {prompt.index} has {column} = {value!r}, which is not a whole number;\n"
            f"  its columns are {', '.join(prompt.columns)}"
        )
    return value


def figures_of(
    answers: RuleAnswers, difficulty: Sequence[int], shape: OuroConfig, tokenizer: Any | None
) -> RuleFigures:
    """The figures of one rule. `tokenizer`: if the share of careful lines is to be found."""
    rule, policy, rollouts, correct = answers.rule, answers.policy, answers.rollouts, answers.correct
    most = policy.max_loops(shape.total_ut_steps)
    loops = [sum(rollout.depths) for rollout in rollouts]
    tokens = [len(rollout.completion_ids) for rollout in rollouts]
    flops = [rollout_flops(shape, rollout, rule, policy) for rollout in rollouts]
    by_level: dict[int, list[int]] = defaultdict(list)
    for index, level in enumerate(difficulty):
        by_level[level].append(index)
    return RuleFigures(
        rule=rule.label(),
        kind=rule.kind,
        value=rule.value,
        **averages(correct, loops, tokens, flops, range(len(rollouts))),
        cut_off=sum(rollout.finish_reason == "length" for rollout in rollouts) / len(rollouts),
        depth_shares=tuple(depth_shares((depth for rollout in rollouts for depth in rollout.depths), most)),
        careful_lines=careful_share(completion_texts(tokenizer, rollouts)) if tokenizer is not None else None,
        by_difficulty={
            str(level): {"problems": len(places), **_known(averages(correct, loops, tokens, flops, places))}
            for level, places in sorted(by_level.items())
        },
        correct=label_of(correct),
        loops=tuple(loops),
        tokens=tuple(tokens),
        flops=tuple(flops),
    )


def averages(
    correct: Sequence[bool | None],
    loops: Sequence[int],
    tokens: Sequence[int],
    flops: Sequence[int],
    places: Sequence[int],
) -> dict[str, float]:
    """Accuracy (NaN without a scored answer) and costs over the problems at `places`."""
    scored = [correct[place] for place in places if correct[place] is not None]
    count, all_loops, all_tokens = len(places), sum(loops[at] for at in places), sum(tokens[at] for at in places)
    return {
        "accuracy": statistics.fmean(map(bool, scored)) if scored else math.nan,
        "loops_per_answer": all_loops / count,
        "loops_per_token": all_loops / all_tokens,
        "tokens_per_answer": all_tokens / count,
        "flops_per_answer": sum(flops[place] for place in places) / count,
    }


def _known(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not math.isnan(value)}


def careful_share(texts: Sequence[str]) -> float | None:
    """Share of careful lines: those with one operation before the equals sign, among those with any; None without
    such lines."""
    operations = [len(_OPERATOR.findall(left)) for text in texts for left in _LINE.findall(text)]
    computed = [count for count in operations if count]
    return statistics.fmean(count == 1 for count in computed) if computed else None


def main(folder: Path) -> int:
    """Measure what `folder` asks for. Returns the exit status; mistakes are printed as the command line prints them."""
    task = json.loads((folder / TASK_FILE).read_text(encoding="utf-8"))
    rules = [
        ExitRule(kind=rule["kind"], value=rule["value"], probabilities=tuple(rule["probabilities"]))
        for rule in task["rules"]
    ]
    try:
        config = load_config(TrainConfig, [folder / CONFIG_FILE])
        record = measure(config, task["model"], rules, difficulty=task["difficulty"], seed=task["seed"])
    except OuroRLError as error:
        print(f"ouro-rl study: {error}", file=sys.stderr)
        return 1
    write_atomically(folder / FIGURES_FILE, [json.dumps(record, allow_nan=False), "\n"])
    return 0


if __name__ == "__main__":
    pin_own_packages()
    sys.exit(main(Path(sys.argv[1])))
