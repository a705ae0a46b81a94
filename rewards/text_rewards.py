"""Built-in rewards that only look at the text: `format`, `length`, `exact` and `regex`."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from ouro_rl.core.errors import UserError
from rewards.extraction import last_boxed, visible_text
from rewards.messages import text_of
from rewards.processes.pool import ProcessPool
from rewards.verdict import Status, Verdict

_ANSWER_TAGS = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class TextReward(ABC):
    """Base class: computes one verdict per completion in this process."""

    wants: tuple[str, ...] = ()
    """Inputs that a scorer passes in addition to the data set's columns."""

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return [verdict.value for verdict in self.verdicts(completions, columns)]

    def verdicts(self, completions: Sequence[Any], columns: dict[str, Any]) -> list[Verdict]:
        found = []
        for index, completion in enumerate(completions):
            started = time.perf_counter()
            row = {name: column[index] for name, column in columns.items()}
            verdict = self.judge(text_of(completion), row)
            found.append(replace(verdict, ms=1000 * (time.perf_counter() - started)))
        return found

    @abstractmethod
    def judge(self, text: str, row: dict[str, Any]) -> Verdict:
        """The verdict on one text, given its row of the data set."""

    def close(self) -> None:  # noqa: B027  # not every reward has something to close
        """Does nothing: there are no workers."""


class FormatReward(TextReward):
    """1 if a completion has all required parts in order, else 0; with `partial`, the share of the parts."""

    __name__ = "format"

    def __init__(
        self,
        *,
        think: bool = True,
        answer: bool = False,
        box: bool = True,
        thinking: bool = False,
        partial: bool = False,
        workers: int = 1,
        timeout_s: float = 5.0,
    ) -> None:
        """think: require exactly one nonempty `<think>...</think>` at the start (thinking: the prompt opened it).
        answer: require exactly one `<answer>...</answer>` after it, at the end. box: require a nonempty box outside
        the thought. partial: give the share of the parts instead of all or nothing. workers, timeout_s: unused."""
        if not (think or answer or box):
            raise UserError("reward 'format' requires no part: set think, answer or box to true")
        self._think, self._answer, self._box = think, answer, box
        self._thinking, self._partial = thinking, partial

    def judge(self, text: str, row: dict[str, Any]) -> Verdict:
        parts: dict[str, bool] = {}
        if self._think:
            parts["think tags"] = self._thought(text)
        after = visible_text(text, thinking=self._thinking)
        if self._answer:
            tags = after.strip()
            parts["answer tags"] = (
                text.count("<answer>") == text.count("</answer>") == 1
                and (found := _ANSWER_TAGS.search(tags)) is not None
                and bool(found.group(1).strip())
                and tags.endswith("</answer>")
            )
        if self._box:
            parts["box"] = bool((last_boxed(after) or "").strip())
        missing = [name for name, there in parts.items() if not there]
        value = 1 - len(missing) / len(parts) if self._partial else float(not missing)
        detail = f"missing or wrong: {', '.join(missing)}" if missing else ""
        return Verdict(value=value, status="wrong" if missing else "correct", detail=detail)

    def _thought(self, text: str) -> bool:
        whole = "<think>" + text if self._thinking else text.lstrip()
        if whole.count("<think>") != 1 or whole.count("</think>") != 1 or not whole.startswith("<think>"):
            return False
        return bool(whole.partition("</think>")[0].removeprefix("<think>").strip())


class LengthReward(TextReward):
    """DAPO's soft overlong punishment (Yu et al., 2025): 0 up to `longest - buffer`, falling linearly to -1 at
    `longest`."""

    __name__ = "length"
    wants = ("completion_ids",)

    def __init__(
        self,
        *,
        longest: int | None = None,
        buffer: int | None = None,
        unit: Literal["tokens", "characters"] = "tokens",
        workers: int = 1,
        timeout_s: float = 5.0,
    ) -> None:
        """longest: length at which the penalty reaches -1, usually rollout.max_new_tokens. buffer: length over which
        it grows (default: a fifth of `longest`). Both in `unit`. workers, timeout_s: unused."""
        if unit not in get_args(Literal["tokens", "characters"]):
            raise UserError(f"reward 'length': unit must be tokens or characters (got {unit!r})")
        buffer = longest // 5 if buffer is None and longest else buffer
        if not isinstance(longest, int) or not isinstance(buffer, int) or not 0 < buffer <= longest:
            raise UserError(
                f"reward 'length' needs kwargs with 0 < buffer <= longest, in {unit} "
                f"(got longest {longest}, buffer {buffer})"
            )
        self._longest, self._buffer, self._unit = longest, buffer, unit

    def judge(self, text: str, row: dict[str, Any]) -> Verdict:
        if self._unit == "tokens" and row.get("completion_ids") is None:
            raise UserError(
                "reward 'length' counts tokens, but there are no `completion_ids`: "
                "add that column, or set `unit: characters`"
            )
        length = len(row["completion_ids"]) if self._unit == "tokens" else len(text)
        value = max(-1.0, min(0.0, (self._longest - self._buffer - length) / self._buffer))
        return Verdict(value=value, status="wrong" if value else "correct", extracted=f"{length} {self._unit}")


class ExactReward(TextReward):
    """1 if the text equals the gold answer character by character, else 0."""

    __name__ = "exact"

    def __init__(
        self,
        *,
        where: Literal["text", "box", "answer", "last_line"] = "text",
        ignore_case: bool = False,
        thinking: bool = False,
        workers: int = 1,
        timeout_s: float = 5.0,
    ) -> None:
        """where: the part compared, always after the thought: the whole text, the last box, the last `<answer>` or the
        last line. Leading and trailing whitespace is ignored. workers, timeout_s: unused."""
        if where not in (places := ("text", "box", "answer", "last_line")):
            raise UserError(f"reward 'exact': where must be one of {', '.join(places)} (got {where!r})")
        self._where, self._ignore_case, self._thinking = where, ignore_case, thinking

    def judge(self, text: str, row: dict[str, Any]) -> Verdict:
        gold = gold_of(row, "exact")
        after = visible_text(text, thinking=self._thinking).strip()
        given: str | None = after or None
        if self._where == "box":
            given = last_boxed(after)
        elif self._where == "answer":
            given = next(iter(_ANSWER_TAGS.findall(after)[-1:]), None)
        elif self._where == "last_line":
            given = next(iter(after.splitlines()[-1:]), None)
        if given is None:
            return Verdict(value=0.0, status="no_answer")
        pair = gold.strip(), given.strip()
        same = pair[0].casefold() == pair[1].casefold() if self._ignore_case else pair[0] == pair[1]
        return Verdict(value=float(same), status="correct" if same else "wrong", extracted=given[:500])


class RegexReward:
    """1 if a pattern matches anywhere in the text after the thought, else 0. If the pattern has a group named `answer`,
    the group must also equal the gold answer.

    Runs in killable workers, since a pattern can backtrack forever."""

    __name__ = "regex"

    def __init__(self, *, pattern: str = "", thinking: bool = False, workers: int = 1, timeout_s: float = 5.0) -> None:
        """pattern: Python `re` syntax; `.` does not match a newline."""
        if not pattern:
            raise UserError("reward 'regex' needs kwargs with a `pattern`")
        try:
            self._compared = "answer" in re.compile(pattern).groupindex
        except re.error as error:
            raise UserError(f"reward 'regex': the pattern {pattern!r} is invalid: {error}") from None
        self._thinking = thinking
        self._pool = ProcessPool(
            "rewards.text_rewards:make_search",
            {"pattern": pattern},
            workers=workers,
            timeout_s=timeout_s,
            memory_mb=1024,
            bare_environment=True,
        )

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return [verdict.value for verdict in self.verdicts(completions, columns)]

    def verdicts(self, completions: Sequence[Any], columns: dict[str, Any]) -> list[Verdict]:
        golds = None
        if self._compared:
            golds = [
                gold_of({name: column[i] for name, column in columns.items()}, "regex") for i in range(len(completions))
            ]
        texts = [visible_text(text_of(completion), thinking=self._thinking) for completion in completions]
        found = []
        for index, reply in enumerate(self._pool.run(texts)):
            if reply.status != "ok":
                found.append(Verdict(value=None, status=reply.status, detail=reply.detail, ms=reply.ms))
                continue
            there, given = reply.value
            right = there and (golds is None or (given or "").strip() == golds[index].strip())
            status: Status = "correct" if right else "wrong" if there else "no_answer"
            found.append(Verdict(value=float(right), status=status, extracted=given and given[:500], ms=reply.ms))
        return found

    def close(self) -> None:
        """End the workers."""
        self._pool.close()


def make_search(pattern: str) -> Callable[[str], list[Any]]:
    """Runs in a worker. The function returns [found, text of the group `answer` (or of the match)]."""
    search, compared = re.compile(pattern).search, "answer" in re.compile(pattern).groupindex

    def handle(text: str) -> list[Any]:
        found = search(text)
        return [found is not None, found.group("answer" if compared else 0) if found else None]

    return handle


def gold_of(row: dict[str, Any], name: str) -> str:
    gold = row.get("answer", row.get("solution"))
    if gold is None:
        have = ", ".join(sorted(row)) or "none"
        raise UserError(
            f"reward {name!r} needs a column `answer` (or `solution`) in the data set, which has {have}: "
            "rename the column of the gold answers"
        )
    return str(gold)
