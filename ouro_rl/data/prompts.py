"""Turns the rows of a data set into prompts: questions rendered with the chat template, as token ids."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from ouro_rl.config.train import DataConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.hub import MATH500
from ouro_rl.core.jsonl import Row, dotted_value, first_row, no_column, read_jsonl
from ouro_rl.core.rollout import Prompt
from ouro_rl.tasks.arithmetic import distinct, problems

logger = logging.getLogger(__name__)

ARITHMETIC_LIMIT = 20_000
"""Number of training problems if the config sets no limit."""
HELD_OUT_LIMIT = 500
HELD_OUT_SEED = 2510
"""Fixed, so that every evaluation uses the same held-out problems."""
BOX_REQUEST = "\nPlease reason step by step, and put your final answer within \\boxed{}."
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
    """Appended to the template's generation prompt; the answer continues from it."""
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
        """`arithmetic` uses the bare problem, as in training; everything else asks for steps and a box."""
        return cls(prompt_suffix="" if name == "arithmetic" else BOX_REQUEST)


# --- data sets
# ---------------------------------------------------------------------------------------------------------


def load_prompts(config: DataConfig, tokenizer: Any, *, seed: int) -> list[Prompt]:
    """The training prompts. `seed` determines the arithmetic problems; other data keeps its order.

    Raises UserError if data is missing, empty or lacks the named columns, or if the tokenizer has no chat template.
    """
    where = f"data.source {config.source}"
    pairs = _pairs(read_rows(config, seed=seed), config.question_column, config.answer_column, where)
    return render(pairs, tokenizer, ChatFormat.of(config), where)


def load_benchmark(
    name: str,
    *,
    tokenizer: Any,
    data_file: Path | None = None,
    limit: int | None = None,
    chat: ChatFormat | None = None,
    operations: Sequence[int] = (2, 3, 4),
) -> list[Prompt]:
    """The problems of `arithmetic` (held out, always the same), `math500` or a .jsonl file. `data_file` has a
    benchmark's problems if they are not to come from the hub. `chat` defaults to `ChatFormat.for_benchmark(name)`.

    Raises UserError like `load_prompts`.
    """
    where, file = f"benchmark {name}", data_file or (Path(name) if name.endswith(".jsonl") else None)
    chat = chat or ChatFormat.for_benchmark(name)
    rows: Iterable[Row]
    if file is not None:
        rows = itertools.islice(read_jsonl(file), limit)
        first = first_row(file, str(file))
    elif name == "arithmetic":
        rows, first = arithmetic_rows(HELD_OUT_SEED, tuple(operations), limit or HELD_OUT_LIMIT, held_out=True), {}
    elif name == "math500":
        rows, first = read_hub(MATH500, None, "test", limit), {}
    else:
        raise UserError(f"{where}: unknown; there are arithmetic and math500, or give a .jsonl file")
    question_column = next((column for column in _QUESTIONS if column in first), "problem")
    answer_column = next((column for column in _ANSWERS if column in first), "answer")
    return render(_pairs(rows, question_column, answer_column, where), tokenizer, chat, where)


def read_rows(config: DataConfig, *, seed: int) -> Iterable[Row]:
    """The first `limit` rows of a data set, as they are stored."""
    if config.source == "arithmetic":
        return arithmetic_rows(seed, config.operations, config.limit or ARITHMETIC_LIMIT, held_out=False)
    if config.source.endswith(".jsonl"):
        return itertools.islice(read_jsonl(Path(config.source)), config.limit)
    return read_hub(config.source, config.name, config.split, config.limit)


def arithmetic_rows(seed: int, operations: tuple[int, ...], count: int, *, held_out: bool) -> Iterator[Row]:
    """`count` problems from one side of the split, with the columns `problem`, `answer` and `operations`."""
    for problem in itertools.islice(distinct(problems(seed, operations, held_out=held_out)), count):
        yield {"problem": problem.text, "answer": str(problem.answer), "operations": len(problem.chain)}


def read_hub(source: str, name: str | None, split: str, limit: int | None) -> Iterable[Row]:
    """Rows of a hub data set. Raises UserError if the data set, its configuration or its split cannot be loaded."""
    import datasets

    try:
        rows = datasets.load_dataset(source, name, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        problem = " ".join(str(error).strip().split("\n")[0].split())[:200]
        raise UserError(
            f"data set {source}: cannot be loaded ({problem});\n  check its id, data.name and data.split"
        ) from error
    return rows if limit is None else rows.select(range(min(limit, len(rows))))


def _pairs(rows: Iterable[Row], question: str, answer: str | None, where: str) -> Iterator[tuple[Any, Row]]:
    """Yield (question, columns for the reward functions). The columns are those of the row, with the gold answer as
    `answer`."""
    for number, row in enumerate(rows, start=1):
        columns = {name: value for name, value in row.items() if name not in _RESERVED}
        if answer is not None:
            columns["answer"] = _required(row, answer, f"{where}, row {number}", "answer")
        yield _required(row, question, f"{where}, row {number}", "question"), columns


def _required(row: Row, column: str, where: str, use: str) -> Any:
    value = dotted_value(row, column)
    if value is None:
        raise UserError(no_column(where, column, row, use))
    return value


# --- rendering
# ---------------------------------------------------------------------------------------------------------


def render(pairs: Iterable[tuple[Any, Row]], tokenizer: Any, chat: ChatFormat, where: str) -> list[Prompt]:
    """Render (question, columns) pairs into prompts, in order. A question is a string or a list of chat messages.
    `where` names the data in errors.

    `Prompt.index` counts all questions, so it does not depend on which are left out for their length.
    """
    if tokenizer.chat_template is None:
        raise UserError(
            "model.path: the tokenizer has no chat template, so questions cannot be rendered;\n"
            "  put a chat_template.jinja next to it (a -Thinking checkpoint has one)"
        )
    pairs = list(pairs)
    if not pairs:
        raise UserError(f"{where}: is empty; give data with at least one row")
    conversations = [_messages(pair[0], chat, f"{where}, row {row}") for row, pair in enumerate(pairs, start=1)]
    try:
        texts = tokenizer.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise UserError(
            f"{where}: the tokenizer's chat template rejects its conversations ({error});\n"
            "  change the data, data.system_prompt or the template"
        ) from error
    token_ids = tokenizer([text + chat.assistant_prefix for text in texts], add_special_tokens=False)["input_ids"]
    longest = chat.max_prompt_tokens
    prompts = [
        Prompt(index=index, token_ids=tuple(ids), messages=messages, columns=columns)
        for index, (ids, messages, (_, columns)) in enumerate(zip(token_ids, conversations, pairs, strict=True))
        if longest is None or len(ids) <= longest
    ]
    if not prompts:
        raise UserError(
            f"{where}: all {len(pairs)} prompts are longer than {longest} tokens; raise data.max_prompt_tokens"
        )
    if len(prompts) < len(pairs):
        left_out = len(pairs) - len(prompts)
        logger.warning("%s: left out %d of %d prompts, longer than %d tokens", where, left_out, len(pairs), longest)
    return prompts


def _messages(question: Any, chat: ChatFormat, where: str) -> list[dict[str, str]]:
    if isinstance(question, str):
        messages = [{"role": "user", "content": question}]
    elif isinstance(question, list) and question and all({"role", "content"} <= set(message) for message in question):
        messages = [{"role": message["role"], "content": message["content"]} for message in question]
    else:
        raise UserError(f"{where}: a question must be a string or a list of chat messages, not {str(question)[:60]!r}")
    messages[-1] = {**messages[-1], "content": messages[-1]["content"] + chat.prompt_suffix}
    if chat.system_prompt is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": chat.system_prompt})
    return messages
