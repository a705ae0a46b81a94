"""Budgets that cut answers, and the reward that grades them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.core.rollout import Prompt, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import ExitRule, SamplingParams
from ouro_rl.evaluation.answers import WHOLE, Answer, Budget, Setting, answer_scorer, grade, kind_of
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from rollout_workers.pool import make_pool
from tests.references.answers import make_answer

TOKENIZER = make_tokenizer()
ROLLOUT = Rollout(
    prompt_index=0, sample_index=0, prompt_ids=(1, 2), completion_ids=(5, 6, 7, 2), token_logprobs=(0.0,) * 4,
    depths=(1, 4, 2, 1), depth_logprobs=(0.0,) * 4, policy_version=0, temperature=0.0, finish_reason="stop",
)  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (WHOLE, 4), (Budget(tokens=9), 4), (Budget(tokens=4), 4), (Budget(tokens=3), 3),
        (Budget(loops=8), 4), (Budget(loops=7), 3), (Budget(loops=6), 2), (Budget(loops=1), 1),
        (Budget(tokens=2, loops=8), 2), (Budget(tokens=3, loops=5), 2),
    ],
)  # fmt: skip
def test_a_budget_keeps_what_fits(budget: Budget, kept: int) -> None:
    cut = budget.cut(ROLLOUT)
    assert cut.completion_ids == ROLLOUT.completion_ids[:kept] and cut.depths == ROLLOUT.depths[:kept]
    assert cut.finish_reason == ("stop" if kept == 4 else "length")


def test_labels_of_budgets() -> None:
    assert WHOLE.label() == "" and Budget(tokens=2048).label() == "2,048 tokens"
    assert Budget(tokens=8, loops=20).label() == "8 tokens, 20 loops"


def test_a_cut_answer_is_the_one_that_a_shorter_limit_gives(random_checkpoint: Path) -> None:
    """Greedy and sampled, at drawn depths: the engine itself, with the shorter limit."""
    import torch

    model, tokenizer = load_policy(str(random_checkpoint), torch.float32)
    prompt = Prompt(index=0, token_ids=tuple(tokenizer("1+2=")["input_ids"]))
    requests = [RolloutRequest(prompt=prompt, seeds=(3, 4))]
    with make_pool(0, model.config.to_dict()) as pool:
        pool.publish(model.state_dict(), 0)
        for temperature in (0.0, 1.0):
            long, short = (
                pool.rollout(
                    requests,
                    SamplingParams(max_new_tokens=limit, temperature=temperature, exit_rule=ExitRule(kind="sample")),
                )
                for limit in (24, 7)
            )
            assert [Budget(tokens=7).cut(rollout) for rollout in long] == short


def test_an_answer_survives_its_line() -> None:
    answer = make_answer(3, 1, value=None, depths=(2, 1), groups={"level": 5}, extracted=None)
    assert Answer.of_dict({**answer.to_dict(), "depths": [2, 1], "completion_ids": [5, 5]}) == answer
    with pytest.raises(TypeError):
        Answer.of_dict({**answer.to_dict(), "at_s": 1.0})


def test_programs_are_graded_by_their_tests() -> None:
    tests = Prompt(index=0, token_ids=(1,), columns={"test_list": ["assert f(1) == 2"]})
    math = Prompt(index=0, token_ids=(1,), columns={"answer": "2", "test": "unused"})
    assert (kind_of([tests]), kind_of([math]), kind_of([])) == ("code", "math", "math")


def test_grading_keeps_what_the_reward_said_and_what_the_problem_is() -> None:
    prompt = Prompt(
        index=8,
        token_ids=tuple(TOKENIZER("<|im_start|>user\n1+1=<|im_end|>")["input_ids"]),
        messages=[{"role": "user", "content": "1+1="}],
        columns={"answer": "2", "difficulty": 1, "source": "x"},
    )
    texts = ("so \\boxed{2}", "3", "")
    rollouts = [
        Rollout(
            prompt_index=8, sample_index=k, prompt_ids=prompt.token_ids, completion_ids=ids,
            token_logprobs=(0.0,) * len(ids), depths=(2,) * len(ids), depth_logprobs=(0.0,) * len(ids),
            policy_version=0, temperature=0.0,
            finish_reason="length",
        )
        for k, ids in enumerate(tuple(TOKENIZER(text)["input_ids"]) for text in texts)
    ]  # fmt: skip
    setting = Setting(benchmark="b", row="fixed 2", params=SamplingParams(max_new_tokens=9))
    with answer_scorer(TOKENIZER, [prompt]) as scorer:
        found = grade(setting, [prompt] * 3, [11, 12, 13], rollouts, tokenizer=TOKENIZER, scorer=scorer, shape=None)
    assert [(a.sample, a.seed, a.value, a.completion) for a in found] == [
        (0, 11, 1.0, texts[0]), (1, 12, 0.0, texts[1]), (2, 13, 0.0, texts[2]),
    ]  # fmt: skip
    assert (found[0].status, found[0].extracted, found[2].status) == ("correct", "2", "no_answer")
    assert (found[0].question, found[0].gold, found[0].groups) == ("1+1=", "2", {"difficulty": 1})
    assert found[0].prompt == "<|im_start|>user\n1+1=<|im_end|>" and found[0].flops is None
