"""Turns the rows of a data set into prompts: questions rendered with the chat template, as token ids."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from ouro_rl.config.evaluation import BOX_REQUEST
from ouro_rl.config.train import DataConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.hub import MATH500
from ouro_rl.core.jsonl import Row, column_problem, dotted_value
from ouro_rl.core.paths import is_row_path
from ouro_rl.core.rollout import Prompt
from ouro_rl.data.conversations import Message, asks_nothing, messages_of, prompt_texts
from ouro_rl.data.rows import read_rows, stored_rows
from ouro_rl.tasks.catalog import GENERATED, generated_rows

logger = logging.getLogger(__name__)

HELD_OUT_LIMIT = 500
HELD_OUT_SEED = 2510
"""Fixed, so that every evaluation uses the same held-out problems."""
_QUESTIONS, _ANSWERS = ("problem", "question", "prompt"), ("answer", "solution")
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
        """Generated tasks use the bare problem, as in training; everything else asks for steps and a box."""
        return cls(prompt_suffix="" if name in GENERATED else BOX_REQUEST)


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
    question_column: str | None = None,
    answer_column: str | None = None,
) -> list[Prompt]:
    """The problems of a generated task (held out, always the same), `math500`, or a data file or folder. `data_file`
    has a benchmark's problems if they are not to come from the hub. `difficulties` defaults to those of the generated
    task, `chat` to `ChatFormat.for_benchmark(name)`. Columns that are None are found by their usual names.

    Raises UserError like `load_prompts`.
    """
    where, stored = f"benchmark {name}", str(data_file or name)
    rows: Iterable[Row]
    if data_file is not None or is_row_path(name):
        rows = stored_rows(stored, split="test", limit=limit)
    elif name in GENERATED:
        rows = generated_rows(name, HELD_OUT_SEED, difficulties, limit or HELD_OUT_LIMIT, held_out=True)
    elif name == "math500":
        rows = stored_rows(MATH500, split="test", limit=limit)
    else:
        raise UserError(f"{where}: unknown; there are {', '.join(GENERATED)} and math500, or give a data file")
    rows = list(rows)
    first = rows[0] if rows else {}
    question = question_column or next((column for column in _QUESTIONS if column in first), "problem")
    answer = answer_column or next((column for column in _ANSWERS if column in first), "answer")
    pairs = _pairs(rows, question, answer, where, section="eval")
    return render(pairs, tokenizer, chat or ChatFormat.for_benchmark(name), where)


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
