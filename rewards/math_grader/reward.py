"""The built-in reward `math`: compares strings in this process and sends the rest to killable workers, with a cache."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, get_args

from ouro_rl.core.errors import UserError
from rewards.extraction import Accept, gold_answer, last_boxed
from rewards.math_grader.grading import AnswerPair, grade_gold, grade_parsed, grade_strings, is_plain, warm_up
from rewards.math_grader.guards import too_large
from rewards.math_grader.normalize import normalize
from rewards.math_grader.policy import POLICY_NAMES, MathPolicy
from rewards.messages import last_user_text, text_of
from rewards.processes.pool import ProcessPool, Reply
from rewards.verdict import Verdict

MEMORY_MB = 2048
"""Address space of one worker in MiB. The work is bounded, so that no answer comes near it."""
_CACHE_SIZE = 8192
_JSON_LIST = re.compile(r'\s*\[\s*"')


def make_handler(policy: dict[str, Any]) -> Callable[[dict[str, str]], dict[str, Any]]:
    """Runs in a worker. Imports the arithmetic once, and returns the handler that grades one pair. Raises UserError if
    it is not installed."""
    try:
        warm_up()
    except ImportError as error:
        raise UserError(f"reward 'math': {error}: install it with `pip install python-flint`") from error
    rules = MathPolicy(**policy)

    def handle(pair: dict[str, str]) -> dict[str, Any]:
        if pair["answer"] == pair["gold"]:  # from `unusable_golds`, which does not count string equality
            return grade_gold(pair["gold"]).to_dict()
        return grade_parsed(AnswerPair(**pair), rules).to_dict()

    return handle


def accepted_golds(gold: Any) -> list[str]:
    """The accepted answers of a data set's column: a list (also as JSON text) holds several, of which any will do.
    None is no gold; true and false are the words."""
    if hasattr(gold, "tolist"):
        gold = gold.tolist()
    if isinstance(gold, str) and _JSON_LIST.match(gold):
        try:
            gold = json.loads(gold)
        except ValueError:
            return [gold]
    if isinstance(gold, list | tuple):
        return [text for part in gold for text in accepted_golds(part)]
    return [] if gold is None else [str(gold)]


class MathReward:
    """1 if the final answer equals the gold answer in any spelling, else 0.

    Callable with TRL's signature; None = could not be scored."""

    __name__ = "math"
    OPTIONS = ("workers", "timeout_s", "accept", "thinking", *POLICY_NAMES)
    wants = ("prompts",)

    def __init__(
        self,
        *,
        workers: int = 1,
        timeout_s: float = 5.0,
        accept: Accept = "phrase",
        thinking: bool = False,
        **policy: Any,
    ) -> None:
        """timeout_s: seconds per answer. accept: see `extraction.Accept`. thinking: the prompt opens the thought.
        policy: options of `policy.MathPolicy`. Raises TypeError for an unknown option and UserError for an invalid
        value."""
        if unknown := sorted(policy.keys() - set(POLICY_NAMES)):
            raise TypeError(f"got an unexpected keyword argument {unknown[0]!r}")
        if accept not in get_args(Accept):
            raise UserError(f"reward 'math': accept must be one of {', '.join(get_args(Accept))} (got {accept!r})")
        self._policy = MathPolicy.of(policy)
        self._pool = ProcessPool(
            "rewards.math_grader.reward:make_handler",
            {"policy": asdict(self._policy)},
            workers=workers,
            timeout_s=timeout_s,
            memory_mb=MEMORY_MB,
            bare_environment=True,
        )
        self._accept, self._thinking = accept, thinking
        self._cache: OrderedDict[AnswerPair, Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Score completions (strings or conversations) against the column `answer`, or else `solution`, row by row."""
        return [verdict.value for verdict in self.verdicts(completions, columns)]

    def verdicts(self, completions: Sequence[Any], columns: dict[str, Any]) -> list[Verdict]:
        """Like `__call__`, with the reasons. The column `prompts`, if given, holds the questions, whose own expressions
        do not count as answers. Raises UserError if there is no column of gold answers."""
        given = [columns[name] for name in ("answer", "solution") if name in columns]
        if not given:
            raise UserError(
                "reward 'math' needs a column `answer` (or `solution`) in the data set, "
                f"which has {', '.join(sorted(columns.keys() - {'prompts'})) or 'none'}: "
                "rename the column of the gold answers"
            )
        questions = [last_user_text(prompt) for prompt in columns.get("prompts") or [""] * len(completions)]
        accepted = [
            next((golds for column in row if (golds := accepted_golds(column))), [""])
            for row in zip(*given, strict=True)
        ]
        items = zip(completions, accepted, questions, strict=True)
        verdicts = iter(
            self._decide(
                [self._read(text_of(completion), gold, asked) for completion, some, asked in items for gold in some]
            )
        )
        return [_best([next(verdicts) for _ in some]) for some in accepted]

    def _read(self, completion: str, gold: str, question: str) -> Verdict | AnswerPair:
        started = time.perf_counter()
        try:
            outcome = grade_strings(
                completion,
                gold,
                accept=self._accept,
                thinking=self._thinking,
                policy=self._policy,
                question=question,
            )
        except Exception as error:  # noqa: BLE001 - no answer may crash the training process
            outcome = Verdict(value=None, status="crash", detail=f"{type(error).__name__}: {error}"[:300])
        if isinstance(outcome, AnswerPair):
            return outcome
        return replace(outcome, ms=1000 * (time.perf_counter() - started))

    def unusable_golds(self, golds: Sequence[Any]) -> dict[int, str]:
        """Gold answers that cannot be graded against, as index -> reason: empty, too large, or unreadable for the
        parser, so that an equal answer in another spelling would never be accepted."""
        accepted = [accepted_golds(gold) or [""] for gold in golds]
        problems: dict[str, str] = {}
        doubtful: dict[str, str] = {}
        for gold in dict.fromkeys(text for some in accepted for text in some):
            own = gold if last_boxed(gold) is not None else f"\\boxed{{{gold_answer(gold)}}}"  # `... #### 34` means 34
            outcome = grade_strings(own, gold, policy=self._policy)
            text = normalize(gold_answer(gold), plain_text=self._policy.plain_text)
            if isinstance(outcome, Verdict) and outcome.value != 1.0:
                problems[gold] = outcome.detail or outcome.status
            elif reason := too_large(text):
                problems[gold] = f"the gold is {reason}"
            elif not is_plain(text):
                doubtful[gold] = text
        replies = self._pool.run([{"gold": text, "answer": text} for text in doubtful.values()])
        for gold, reply in zip(doubtful, replies, strict=True):
            verdict = _verdict(reply)
            if verdict.value != 1.0:
                problems[gold] = verdict.detail or verdict.status
        return {
            index: problems[some[0]] for index, some in enumerate(accepted) if all(gold in problems for gold in some)
        }

    def _decide(self, outcomes: list[Verdict | AnswerPair]) -> list[Verdict]:
        """Send each distinct undecided pair to a worker once, and return the verdicts in order."""
        undecided = list(dict.fromkeys(pair for pair in outcomes if isinstance(pair, AnswerPair)))
        with self._lock:
            known = {pair: self._cache[pair] for pair in undecided if pair in self._cache}
        new = [pair for pair in undecided if pair not in known]
        replies = self._pool.run([{"gold": pair.gold, "answer": pair.answer} for pair in new])
        for pair, reply in zip(new, replies, strict=True):
            known[pair] = _verdict(reply)
            if reply.status == "ok":  # do not cache timeouts and crashes: the machine may have been busy
                self._remember(pair, known[pair])
        return [
            replace(known[outcome], extracted=outcome.extracted) if isinstance(outcome, AnswerPair) else outcome
            for outcome in outcomes
        ]

    def _remember(self, pair: AnswerPair, verdict: Verdict) -> None:
        with self._lock:
            self._cache[pair] = verdict
            if len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)

    def close(self) -> None:
        """End the workers."""
        self._pool.close()


def _best(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on an answer with several accepted golds: the first that is right, else the first that is scored."""
    right = [verdict for verdict in verdicts if verdict.value == 1.0]
    scored = [verdict for verdict in verdicts if verdict.value is not None]
    return (right or scored or list(verdicts))[0]


def _verdict(reply: Reply) -> Verdict:
    if reply.status == "ok":
        return replace(Verdict(**reply.value), ms=reply.ms)
    return Verdict(value=None, status=reply.status, detail=reply.detail, ms=reply.ms)
