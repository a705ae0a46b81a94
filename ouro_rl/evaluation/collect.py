"""The answers of one exit rule: what is known already is read, the rest is sampled, graded and written as it comes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Self

from tqdm import tqdm

from ouro_rl.core.progress import say
from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.evaluation.answers import Answer, Setting, grade
from ouro_rl.evaluation.evaluate import requests_for
from ouro_rl.evaluation.grading import Finished, Grading
from ouro_rl.evaluation.out_folder import RowKey, timed, to_line, untimed
from ouro_rl.evaluation.rows import EvalRow
from ouro_rl.model.configuration_ouro import OuroConfig
from rewards.scorer import Scorer
from rollout_workers.pool import RolloutPool

LINE_EVERY_S = 30
"""Where there is no terminal, a line of progress comes this often."""


class Progress:
    """How far the whole command is, and how long it will take: a bar on a terminal, else a line now and then."""

    def __init__(self, total: int):
        self.total, self.known, self.done, self.rows = total, 0, 0, 0
        self.started = self.told = time.monotonic()
        self.bar = tqdm(total=total, unit="answer", disable=None)

    def begin_row(self, name: str, known: int) -> None:
        self.bar.set_description_str(name, refresh=False)
        self.known += known
        self._move(known)
        self.base = self.done

    def show(self, tokens: int, finished: int) -> None:
        """Of this row: completion tokens and finished samples."""
        self.bar.set_postfix_str(f"{tokens:,} tokens", refresh=False)
        self._move(self.base + finished - self.done)
        if self.bar.disable and time.monotonic() - self.told >= LINE_EVERY_S:
            self.told = time.monotonic()
            say(f"{self.bar.desc or 'answers'}: {self.done:,} of {self.total:,} answers in all{self._remaining()}")

    def row_done(self, row: EvalRow) -> None:
        figures = f"{row.accuracy:.1%} [{row.ci_low:.1%}, {row.ci_high:.1%}], {row.loops_per_answer:,.1f} loops/answer"
        line = f"{row.label}: {figures}; {self.done:,} of {self.total:,} answers in all{self._remaining()}"
        say(line) if self.bar.disable else self.bar.write(line)

    def _move(self, count: int) -> None:
        self.done += count
        self.bar.update(count)

    def _remaining(self) -> str:
        """`, about 3 min left`, from the speed so far; nothing before anything was sampled."""
        made = self.done - self.known
        if made <= 0 or self.done >= self.total:
            return ""
        left = (time.monotonic() - self.started) / made * (self.total - self.done)
        return f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Answers the problems of one benchmark."""

    pool: RolloutPool
    tokenizer: Any
    scorer: Scorer
    shape: OuroConfig
    file: IO[str]
    """The partial file of the folder, open for appending."""
    progress: Progress
    samples: int
    seed: int

    def collect(
        self, prompts: Sequence[Prompt], settings: Sequence[Setting], known: Mapping[RowKey, Sequence[Mapping]]
    ) -> tuple[list[list[Answer]], float]:
        """By setting, the answers problem by problem and sample by sample; and the seconds that they took, over all
        starts of the command. The settings differ in their budgets alone: one sample serves them all.

        `known`: lines of the partial file."""
        found, before = read_known(settings, known)
        asked = [
            (request.prompt, sample, seed)
            for request in requests_for(prompts, self.samples, self.seed)
            for sample, seed in enumerate(request.seeds)
        ]
        missing = [one for one in asked if (one[0].index, one[1]) not in found[0]]
        self.progress.begin_row(settings[0].params.exit_rule.label(), len(asked) - len(missing))
        started = time.monotonic()

        def grade_and_write(finished: Sequence[Finished]) -> None:
            where = [missing[place] for place, _ in finished]
            rollouts = [
                replace(rollout, sample_index=sample)
                for (_, rollout), (_, sample, _) in zip(finished, where, strict=True)
            ]
            problems, seeds = [prompt for prompt, _, _ in where], [seed for _, _, seed in where]
            lines = []
            for setting, answers in zip(settings, found, strict=True):
                for answer in grade(
                    setting, problems, seeds, rollouts, tokenizer=self.tokenizer, scorer=self.scorer, shape=self.shape
                ):
                    answers[answer.key] = answer
                    lines.append(to_line(timed(answer.to_dict(), before + time.monotonic() - started)))
            self.file.writelines(lines)
            self.file.flush()

        if missing:
            with Grading(grade_and_write) as grading:
                requests = grouped(missing)
                rollouts = self.pool.rollout(requests, settings[0].params, self.progress.show, grading.add)
                grading.finish(rollouts)
            self.progress.show(sum(len(rollout.completion_ids) for rollout in rollouts), len(rollouts))
        seconds = before + (time.monotonic() - started if missing else 0.0)
        keys = [(prompt.index, sample) for prompt, sample, _ in asked]
        return [[answers[key] for key in keys] for answers in found], seconds


def read_known(
    settings: Sequence[Setting], known: Mapping[RowKey, Sequence[Mapping]]
) -> tuple[list[dict[tuple[int, int], Answer]], float]:
    """The known answers of each setting, by problem and sample, and the seconds that they took. A sample that is not
    there under every setting was interrupted in being written, and counts as missing."""
    found, seconds = [], 0.0
    for setting in settings:
        answers = {}
        for line in known.get((setting.benchmark, setting.row), ()):
            values, at = untimed(dict(line))
            answer = Answer.of_dict(values)
            answers[answer.key] = answer
            seconds = max(seconds, at)
        found.append(answers)
    whole = set.intersection(*(set(answers) for answers in found))
    return [{key: answers[key] for key in whole} for answers in found], seconds


def grouped(missing: Sequence[tuple[Prompt, int, int]]) -> list[RolloutRequest]:
    """One request per problem, for (problem, sample, seed) in the order of the problems."""
    requests: list[RolloutRequest] = []
    for prompt, _, seed in missing:
        if requests and requests[-1].prompt is prompt:
            requests[-1] = replace(requests[-1], seeds=(*requests[-1].seeds, seed))
        else:
            requests.append(RolloutRequest(prompt=prompt, seeds=(seed,)))
    return requests
