"""Turns the rows of a data set into prompts: questions rendered with the chat template, as token ids."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from ouro_rl.config.evaluation import BOX_REQUEST, box_request
from ouro_rl.config.train import DataConfig
from ouro_rl.core.benchmarks import HUB_BENCHMARKS, TEST_COLUMNS, HubBenchmark, code_question
from ouro_rl.core.errors import UserError
from ouro_rl.core.jsonl import Row, column_problem, dotted_value
from ouro_rl.core.paths import HUB_ID, is_row_path
from ouro_rl.core.rollout import Prompt
from ouro_rl.data.conversations import Message, asks_nothing, messages_of, prompt_texts
from ouro_rl.data.rows import read_rows, stored_rows
from ouro_rl.tasks.catalog import GENERATED, generated_rows

logger = logging.getLogger(__name__)

HELD_OUT_LIMIT = 500
HELD_OUT_SEED = 2510
"""Fixed, so that every evaluation uses the same held-out problems."""
_QUESTIONS, _ANSWERS = ("problem", "question", "prompt", "text"), ("answer", "solution")
_RESERVED = {"prompt", "prompts", "completion", "completions", "completion_ids"}
"""Parameter names of reward functions; data set columns with these names are not passed on."""


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """How a question becomes a prompt."""

    system_prompt: str | None = None
    prompt_suffix: str = ""
    """Appended to the question."""
    assistant_prefix: str = ""
    """Appended to the template's generation prompt; the answer continues from it. A row whose last message is the
    assistant's is continued from that message instead."""
    max_prompt_tokens: int | None = None
    """Longer prompts are left out; a warning counts them."""

    @classmethod
    def of(cls, config: DataConfig) -> ChatFormat:
        return cls(
            system_prompt=config.system_prompt,
            prompt_suffix=config.prompt_suffix,
            assistant_prefix=config.assistant_prefix,
            max_prompt_tokens=config.max_prompt_tokens,
        )

    @classmethod
    def for_benchmark(cls, name: str) -> ChatFormat:
        """What `box_request` says."""
        return cls(prompt_suffix=box_request(name))


@dataclass(frozen=True, kw_only=True)
class StoredAs:
    """Which part of a stored data set; None: the benchmark's, or the usual one."""

    name: str | None = None
    """Configuration of a hub data set."""
    split: str | None = None
    revision: str | None = None


# --- data sets --------------------------------------------------------------------------------------------------------


def load_prompts(config: DataConfig, tokenizer: Any, *, seed: int) -> list[Prompt]:
    """The training prompts. `seed` determines the generated problems; other data keeps its order.

    Raises UserError if data is missing, empty or lacks the named columns, or if the tokenizer has no chat template.
    """
    where = f"data.source {config.source}"
    rows = read_rows(config, seed=seed)
    return render(
        _pairs(rows, config.question_column, config.answer_column, where), tokenizer, ChatFormat.of(config), where
    )


def load_benchmark(
    name: str,
    *,
    tokenizer: Any,
    data_file: Path | None = None,
    limit: int | None = None,
    chat: ChatFormat | None = None,
    difficulties: Sequence[int] | None = None,
    stored: StoredAs = StoredAs(),
    question_column: str | None = None,
    answer_column: str | None = None,
) -> list[Prompt]:
    """The problems of a generated task (held out, always the same), a benchmark of the hub, a data file or folder, or a
    hub data set. `data_file` has a benchmark's problems if they are not to come from the hub. `difficulties` defaults
    to those of the generated task, `chat` to `ChatFormat.for_benchmark(name)`. Columns that are None are found by their
    usual names; rows with tests and no gold answer are programming problems (`code_question`).

    Raises UserError like `load_prompts`.
    """
    where, chat = f"benchmark {name}", chat or ChatFormat.for_benchmark(name)
    known = HUB_BENCHMARKS.get(name) if data_file is None or name in HUB_BENCHMARKS else None
    rows = list(_benchmark_rows(name, known, data_file, limit, difficulties, stored, where))
    first = rows[0] if rows else {}
    questions, answers = ((known.question, *_QUESTIONS), _ANSWERS) if known else (_QUESTIONS, _ANSWERS)
    question = question_column or next((column for column in questions if column in first), "problem")
    answer = answer_column or next((column for column in answers if column in first), None)
    code = answer_column is None and (known.reward == "code" if known else answer is None and has_tests(first))
    if code:
        answer = None
        if chat.prompt_suffix == BOX_REQUEST:  # asks for a number, which no program is
            chat = replace(chat, prompt_suffix="")
    elif answer is None:
        answer = "answer"
    pairs: Iterable[tuple[Any, Row]] = _pairs(rows, question, answer, where, section="eval")
    if code:
        pairs = [_as_code(text, columns) for text, columns in pairs]
    return render(pairs, tokenizer, chat, where)


def has_tests(row: Row) -> bool:
    return any(row.get(column) is not None for column in TEST_COLUMNS)


def _as_code(text: Any, columns: Row) -> tuple[Any, Row]:
    """The question of a programming problem, with its first form as the column `prompt`, which the reward reads."""
    return (code_question(columns, text), {**columns, "prompt": text}) if isinstance(text, str) else (text, columns)


def _benchmark_rows(
    name: str,
    known: HubBenchmark | None,
    data_file: Path | None,
    limit: int | None,
    difficulties: Sequence[int] | None,
    stored: StoredAs,
    where: str,
) -> Iterable[Row]:
    split = stored.split or "test"
    if data_file is not None or is_row_path(name):
        return stored_rows(str(data_file or name), stored.name, split, limit=limit)
    if name in GENERATED:
        return generated_rows(name, HELD_OUT_SEED, difficulties, limit or HELD_OUT_LIMIT, held_out=True)
    if known is not None:
        parts = stored.name or known.config, stored.split or known.split
        return stored_rows(known.hub_id, *parts, stored.revision, limit=limit)
    if HUB_ID.fullmatch(name):
        return stored_rows(name, stored.name, split, stored.revision, limit=limit)
    names = ", ".join([*GENERATED, *HUB_BENCHMARKS])
    raise UserError(f"{where}: unknown; there are {names}, or give a data file or the hub id of a data set")


def _pairs(
    rows: Iterable[Row], question: str, answer: str | None, where: str, section: str = "data"
) -> Iterator[tuple[Any, Row]]:
    """Yield (question, columns for the reward functions). The columns are those of the row, with the gold answer as
    `answer`. `section` of the config has the columns' names."""
    for number, row in enumerate(rows, start=1):
        columns = {name: value for name, value in row.items() if name not in _RESERVED}
        if answer is not None:
            columns["answer"] = _required(row, answer, f"{where}, row {number}", f"{section}.answer_column")
        yield _required(row, question, f"{where}, row {number}", f"{section}.question_column"), columns


def _required(row: Row, column: str, where: str, key: str) -> Any:
    value = dotted_value(row, column)
    if value is None:
        raise UserError(column_problem(where, column, row, key))
    return value


# --- rendering --------------------------------------------------------------------------------------------------------


def render(pairs: Iterable[tuple[Any, Row]], tokenizer: Any, chat: ChatFormat, where: str) -> list[Prompt]:
    """Render (question, columns) pairs into prompts, in order. A question is a string or a list of chat messages.
    `where` names the data in errors.

    `Prompt.index` counts all questions, so it does not depend on which are left out.
    """
    if tokenizer.chat_template is None:
        raise UserError(
            "model.path: the tokenizer has no chat template, so questions cannot be rendered;\n"
            "  put a chat_template.jinja next to it (a -Thinking checkpoint has one)"
        )
    pairs = list(pairs)
    if not pairs:
        raise UserError(f"{where}: is empty; give data with at least one row")
    conversations = [
        messages_of(question, f"{where}, row {row}", system_prompt=chat.system_prompt, prompt_suffix=chat.prompt_suffix)
        for row, (question, _) in enumerate(pairs, start=1)
    ]
    rows = _with_a_question(conversations, [columns for _, columns in pairs], chat.prompt_suffix, where)
    try:
        texts = prompt_texts(tokenizer, [messages for _, messages, _ in rows], chat.assistant_prefix)
    except TemplateError as error:
        raise UserError(
            f"{where}: the tokenizer's chat template rejects its conversations ({error});\n"
            "  change the data, data.system_prompt or the template"
        ) from error
    token_ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    longest = chat.max_prompt_tokens
    prompts = [
        Prompt(index=index, token_ids=tuple(ids), messages=messages, columns=columns)
        for ids, (index, messages, columns) in zip(token_ids, rows, strict=True)
        if longest is None or len(ids) <= longest
    ]
    if not prompts:
        raise UserError(
            f"{where}: all {len(rows)} prompts are longer than {longest} tokens; raise data.max_prompt_tokens"
        )
    if len(prompts) < len(rows):
        left_out = len(rows) - len(prompts)
        logger.warning("%s: left out %d of %d prompts, longer than %d tokens", where, left_out, len(rows), longest)
    return prompts


def _with_a_question(
    conversations: Sequence[list[Message]], columns: Sequence[Row], prompt_suffix: str, where: str
) -> list[tuple[int, list[Message], Row]]:
    """(index, messages, columns) of the rows whose question is not blank; a warning counts the others. Raises UserError
    if all are blank."""
    rows = [
        (index, messages, of_row)
        for index, (messages, of_row) in enumerate(zip(conversations, columns, strict=True))
        if not asks_nothing(messages, prompt_suffix)
    ]
    if not rows:
        raise UserError(f"{where}: all {len(conversations)} questions are empty; correct the data or the column")
    if len(rows) < len(conversations):
        kept = {index for index, _, _ in rows}
        first = next(index for index in range(len(conversations)) if index not in kept)
        logger.warning(
            "%s: left out %d of %d prompts, whose question is empty; the first is row %d",
            where, len(conversations) - len(rows), len(conversations), first + 1,
        )  # fmt: skip
    return rows
