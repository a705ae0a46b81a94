"""Turning rows into prompts."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import datasets
import pytest

from ouro_rl.config.train import DataConfig, EvalConfig, difficulties_of
from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Rollout
from ouro_rl.data.prompts import BOX_REQUEST, ChatFormat, load_benchmark, load_prompts
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.model.tokenizer import completion_texts
from ouro_rl.tasks.held_out import is_held_out

TOKENIZER = make_tokenizer()


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def texts(prompts) -> list[str]:
    return [TOKENIZER.decode(prompt.token_ids) for prompt in prompts]


def test_arithmetic_prompts_are_from_the_training_side_and_follow_the_seed() -> None:
    config = DataConfig(limit=300)
    prompts = load_prompts(config, TOKENIZER, seed=0)
    assert len(prompts) == len({prompt.token_ids for prompt in prompts}) == 300
    assert [prompt.index for prompt in prompts] == list(range(300))
    first = prompts[0]
    assert texts([first]) == [f"<|im_start|>user\n{first.columns['problem']}<|im_end|>\n<|im_start|>assistant\n"]
    assert first.columns["answer"] == str(eval(first.columns["problem"]))
    assert not any(is_held_out(prompt.columns["problem"]) for prompt in prompts)
    assert load_prompts(config, TOKENIZER, seed=0) == prompts != load_prompts(config, TOKENIZER, seed=1)


def test_hops_prompts_are_the_bare_problem_with_its_difficulty() -> None:
    for prompts, held_out in (
        (load_prompts(DataConfig(source="hops", hops=(3, 1), limit=40), TOKENIZER, seed=0), False),
        (load_benchmark("hops", tokenizer=TOKENIZER, limit=40, difficulties=(3, 1)), True),
    ):
        first = prompts[0]
        assert texts([first]) == [f"<|im_start|>user\n{first.columns['problem']}<|im_end|>\n<|im_start|>assistant\n"]
        assert [prompt.columns["difficulty"] for prompt in prompts[:4]] == [3, 1, 3, 1]
        assert {is_held_out(prompt.columns["problem"]) for prompt in prompts} == {held_out}
        assert len({len(prompt.token_ids) for prompt in prompts}) == 1


def test_each_source_has_difficulties_of_its_own() -> None:
    for section in (DataConfig, EvalConfig):
        for source, expected in {"arithmetic": (7,), "hops": (2,), "math500": None, "my.jsonl": None}.items():
            assert difficulties_of(section(source=source, operations=(7,), hops=(2,))) == expected
    assert difficulties_of(EvalConfig()) is None


def test_the_arithmetic_benchmark_is_held_out_and_always_the_same() -> None:
    prompts = load_benchmark("arithmetic", tokenizer=TOKENIZER, limit=40)
    assert prompts == load_benchmark("arithmetic", tokenizer=TOKENIZER)[:40]
    assert all(is_held_out(prompt.columns["problem"]) for prompt in prompts)


def test_a_prompt_is_template_then_prefix(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", {"problem": "1+1?", "answer": "2", "level": 3})
    config = DataConfig(
        source=source, system_prompt="Be brief.", prompt_suffix=" Box it.", assistant_prefix="<think>\n"
    )
    (prompt,) = load_prompts(config, TOKENIZER, seed=0)
    system, user = "<|im_start|>system\nBe brief.<|im_end|>\n", "<|im_start|>user\n1+1? Box it.<|im_end|>\n"
    assert texts([prompt]) == [f"{system}{user}<|im_start|>assistant\n<think>\n"]
    assert prompt.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1? Box it."}]
    assert prompt.columns == {"problem": "1+1?", "answer": "2", "level": 3}


def test_nested_rows_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in DAPO-Math-17k: the prompt is a list of messages, the answer is in a nested column."""
    chat = [{"role": "user", "content": "Solve it."}]
    rows = datasets.Dataset.from_list(
        [{"prompt": chat, "reward_model": {"ground_truth": str(n), "style": "rule"}, "source": "x"} for n in range(5)]
    )
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or rows)
    config = DataConfig(
        source="org/name", name="en", question_column="prompt", answer_column="reward_model.ground_truth", limit=3
    )
    prompts = load_prompts(config, TOKENIZER, seed=0)
    assert asked == [(("org/name", "en"), {"split": "train", "revision": None})]
    assert [prompt.columns["answer"] for prompt in prompts] == ["0", "1", "2"]
    assert prompts[0].messages == chat
    assert "prompt" not in prompts[0].columns and prompts[0].columns["source"] == "x"


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise ConnectionError("Couldn't reach it\nmore")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match="org/name: cannot be loaded .Couldn't reach it"):
        load_prompts(DataConfig(source="org/name"), TOKENIZER, seed=0)


def test_long_prompts_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"problem": "x" * length, "answer": "0"} for length in (1, 500, 2)]
    source = write(tmp_path / "rows.jsonl", *rows)
    with caplog.at_level(logging.WARNING):
        prompts = load_prompts(DataConfig(source=source, max_prompt_tokens=100), TOKENIZER, seed=0)
    assert [prompt.index for prompt in prompts] == [0, 2], "the index is the row's, so that seeds do not move"
    assert "left out 1 of 3 prompts" in caplog.text
    with pytest.raises(UserError, match="all 3 prompts are longer than 5 tokens"):
        load_prompts(DataConfig(source=source, max_prompt_tokens=5), TOKENIZER, seed=0)


def test_empty_questions_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A prompt of suffix and template alone teaches nothing; an empty part of a conversation may be meant."""
    chat = [{"role": "user", "content": ""}, {"role": "assistant", "content": "?"}, {"role": "user", "content": "1+1"}]
    blank = [{"role": "system", "content": "Add."}, {"role": "user", "content": [{"type": "text", "text": " "}]}]
    rows = [{"problem": question, "answer": "0"} for question in ("1", "", "2", " \n", chat, blank)]
    source = write(tmp_path / "rows.jsonl", *rows)
    config = DataConfig(source=source, prompt_suffix=" Box it.", system_prompt="Be brief.")
    with caplog.at_level(logging.WARNING):
        prompts = load_prompts(config, TOKENIZER, seed=0)
    assert [prompt.index for prompt in prompts] == [0, 2, 4]
    assert "left out 3 of 6 prompts, whose question is empty; the first is row 2" in caplog.text
    source = write(tmp_path / "blank.jsonl", *[rows[1]] * 2)
    with pytest.raises(UserError, match="all 2 questions are empty"):
        load_prompts(config.model_copy(update={"source": source}), TOKENIZER, seed=0)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ('{"problem": "1", "answer": "1"}\nnope\n', "line 2: not JSON"),
        ("[1]\n", "line 1: is not a JSON object"),
        ('{"problem": "1", "answer": "1"}\n{"problem": "1"}\n', "row 2: there is no column 'answer'"),
        ('{"problem": "1", "answer": null}\n', "row 1: column 'answer' is null"),
        ('{"problem": 3, "answer": "1"}\n', "row 1: a question must be a string"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=part):
        load_prompts(DataConfig(source=str(path)), TOKENIZER, seed=0)


def test_data_without_answers(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", {"problem": "write f", "tests": ["assert f(1) == 1"]})
    (prompt,) = load_prompts(DataConfig(source=source, answer_column=None), TOKENIZER, seed=0)
    assert prompt.columns == {"problem": "write f", "tests": ["assert f(1) == 1"]}


def test_a_tokenizer_without_chat_template() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        load_prompts(DataConfig(limit=2), tokenizer, seed=0)
    tokenizer.chat_template = "{{ raise_exception('no system prompts here') }}"
    with pytest.raises(UserError, match="no system prompts here"):
        load_prompts(DataConfig(limit=2), tokenizer, seed=0)


def test_benchmarks_from_files(tmp_path: Path) -> None:
    math = Path(write(tmp_path / "math.jsonl", {"problem": "p", "solution": "long", "answer": "7"}))
    (prompt,) = load_benchmark("math500", tokenizer=TOKENIZER, data_file=math)
    assert prompt.messages[0]["content"] == "p" + BOX_REQUEST and prompt.columns["answer"] == "7"
    gsm = write(tmp_path / "gsm.jsonl", *[{"question": "q", "answer": "think\n#### 7"}] * 3)
    prompts = load_benchmark(gsm, tokenizer=TOKENIZER, limit=2, chat=ChatFormat(assistant_prefix="A:"))
    assert len(prompts) == 2 and texts(prompts)[0].endswith("q<|im_end|>\n<|im_start|>assistant\nA:")
    assert prompts[0].columns["answer"] == "think\n#### 7"
    with pytest.raises(UserError, match="unknown"):
        load_benchmark("aime", tokenizer=TOKENIZER)


def test_graders_see_the_completion_without_its_stop_token() -> None:
    def rollout(text: str, reason: str, end: str | None = None) -> Rollout:
        ids = tuple(TOKENIZER(text)["input_ids"])
        nothing = (0.0,) * len(ids)
        return Rollout(
            prompt_index=0, sample_index=0, prompt_ids=(1,), completion_ids=ids, token_logprobs=nothing,
            depths=(1,) * len(ids), depth_logprobs=nothing, policy_version=0, temperature=1.0, finish_reason=reason,
            stop_string=end,
        )  # fmt: skip

    assert completion_texts(TOKENIZER, [rollout("\\boxed{3}<|im_end|>", "stop"), rollout("1+1", "length")]) == [
        "\\boxed{3}",
        "1+1",
    ]
    by_text = [
        rollout("a</answer>", "stop", "</answer>"),
        rollout("the user", "stop", "us"),
        rollout("no end", "stop", "x"),
    ]
    assert completion_texts(TOKENIZER, by_text) == ["a</answer>", "the us", "no end"]
