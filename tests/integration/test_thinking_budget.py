"""Thoughts closed after a budget, from config to metrics."""

import json

import pytest
import torch

from ouro_rl.config.rollout import RolloutConfig
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from ouro_rl.data.sampling import sampling_params
from ouro_rl.evaluation.held_out import greedy_params
from ouro_rl.launch import run_training
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from tests.references.tiny_training import config_of, metrics_of

BUDGET = {"rollout__thinking_budget": 3, "rollout__max_new_tokens": 20}
CREDIT = {"gate__probe_share": 1.0, "gate__credit": "rao_blackwell", "trainer__credit": "rao_blackwell"}


@pytest.mark.parametrize("changes", [{}, {"rollout__top_k": 3}, {**CREDIT, "rollout__top_p": 0.5}])
def test_a_run_replays_forced_tokens_without_a_gap(checkpoint, tmp_path, changes):
    config = config_of(checkpoint, tmp_path / "run", trainer__steps=2, **BUDGET, **changes)
    assert run_training(config, resume=False) == 0
    tokenizer = make_tokenizer()
    closing = tokenizer("\n</think>\n\n", add_special_tokens=False)["input_ids"]
    for step, row in enumerate(metrics_of(tmp_path / "run"), start=1):
        assert row["logp_gap/max"] <= 1e-5 and row["completion/thought_closed"] > 0.5
        assert torch.tensor([row["grad_norm"], row["loss/token"], row["loss/gate"]]).isfinite().all()
        lines = (tmp_path / "run" / "rollouts" / f"step-{step:06d}.jsonl").read_text().splitlines()
        closed = [record for record in map(json.loads, lines) if record["forced"] != [0, 0]]
        assert len(closed) / len(lines) == row["completion/thought_closed"]
        for record in closed:
            forced = slice(*record["forced"])
            assert record["completion_ids"][forced] == closing and record["forced"][0] == 3
            assert record["token_logprobs"][forced] == [0.0] * len(closing)
            assert "\n</think>\n\n" in record["completion"]


def evaluated(**evaluation):
    return TrainConfig.model_validate(
        {
            "model": {"path": "x"},
            "rollout": {"thinking_budget": 5, "thinking_closing": "</think>"},
            "rewards": {"functions": [{"name": "math"}]},
            "trainer": {"steps": 1},
            "eval": evaluation,
        },
        strict=False,
    )


def test_an_evaluation_has_the_same_budget():
    tokenizer, config = make_tokenizer(), evaluated()
    budget = greedy_params(config, tokenizer).thinking_budget
    assert budget == sampling_params(config.rollout, tokenizer).thinking_budget
    assert budget.tokens == 5 and tokenizer.decode(budget.closing_ids) == "</think>"
    assert sampling_params(RolloutConfig(), tokenizer).thinking_budget is None


def test_what_cannot_be_closed():
    with pytest.raises(
        UserError, match=r"rollout.thinking_budget: 60 tokens of thought and \d+ that close it leave no"
    ):
        sampling_params(RolloutConfig(thinking_budget=60, max_new_tokens=64), make_tokenizer())
    with pytest.raises(UserError, match=r"5 tokens of thought .* no room for an answer within eval.max_new_tokens.*6"):
        greedy_params(evaluated(max_new_tokens=6), make_tokenizer())
    longer = evaluated(max_new_tokens=900)
    longer = longer.model_copy(update={"rollout": longer.rollout.model_copy(update={"thinking_budget": 800})})
    assert greedy_params(longer, make_tokenizer()).max_new_tokens == 900, "the rollouts' limit is not its own"
    with pytest.raises(UserError, match="within rollout.max_new_tokens"):
        sampling_params(longer.rollout, make_tokenizer())
    with pytest.raises(ValueError, match="thinking_closing does not end a thought; put </think> into it"):
        RolloutConfig(thinking_closing="Enough.")
    assert RolloutConfig(thinking_closing=r"\n</think>\n").thinking_closing == "\n</think>\n"
