"""Measuring a checkpoint: figures by hand, and one real checkpoint against `evaluate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.rollout import Prompt, Rollout
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule
from ouro_rl.evaluation.request import Ask, EvalRequest
from ouro_rl.evaluation.run import run_eval
from ouro_rl.evaluation.study.measure import careful_share, figures_of, level_of, main
from ouro_rl.evaluation.under_rules import RuleAnswers
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.flops import answer_flops

SHAPE = OuroConfig(vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)


def answer(depths: tuple[int, ...], prompt: int = 3, reason="stop") -> Rollout:
    zeros = (0.0,) * len(depths)
    return Rollout(
        prompt_index=0, sample_index=0, prompt_ids=(1,) * prompt, completion_ids=(1,) * len(depths),
        token_logprobs=zeros, depths=depths, depth_logprobs=zeros, policy_version=0, temperature=0.0,
        finish_reason=reason,
    )  # fmt: skip


def answers(rule: ExitRule, grades: list, rollouts: list, policy: DepthPolicy | None = None) -> RuleAnswers:
    return RuleAnswers(rule=rule, policy=policy or DepthPolicy(), grades=grades, rollouts=rollouts)


def test_figures_by_hand():
    rollouts = [answer((1, 2)), answer((4, 4, 4), reason="length"), answer((2,))]
    rule = ExitRule(kind="threshold", value=0.5)
    found = figures_of(answers(rule, [1.0, 0.0, None], rollouts), [1, 2, 1], SHAPE, None)
    assert (found.rule, found.correct, found.loops, found.tokens) == ("threshold 0.5", "10-", (3, 12, 2), (2, 3, 1))
    assert (found.accuracy, found.loops_per_answer, found.tokens_per_answer) == (0.5, 17 / 3, 2.0)
    assert found.loops_per_token == 17 / 6 and found.cut_off == 1 / 3
    assert found.depth_shares == pytest.approx((1 / 6, 2 / 6, 0, 3 / 6))
    flops = [answer_flops(SHAPE, 3, rollout.depths, 4) for rollout in rollouts]
    assert found.flops_per_answer == sum(flops) / 3
    assert found.by_difficulty["1"] == {
        "problems": 2, "accuracy": 1.0, "loops_per_answer": 2.5, "loops_per_token": 5 / 3, "tokens_per_answer": 1.5,
        "flops_per_answer": (flops[0] + flops[2]) / 2,
    }  # fmt: skip
    unscored = figures_of(answers(rule, [1.0, None, 1.0], rollouts), [1, 2, 1], SHAPE, None)
    assert "accuracy" not in unscored.by_difficulty["2"], "unknown is not 0"


def test_tokens_that_run_all_loops_cost_all_loops():
    policy = DepthPolicy(kv_rule=KVRule.FULL)
    (rollout,) = rollouts = [answer((1, 2))]
    found = figures_of(answers(ExitRule(), [1.0], rollouts, policy), [1], SHAPE, None)
    assert found.flops_per_answer == answer_flops(SHAPE, len(rollout.prompt_ids), (4, 4), 4)


def test_a_rule_that_reads_the_head_pays_for_it_at_every_loop():
    (rollout,) = rollouts = [answer((1, 3))]
    found = [
        figures_of(answers(rule, [1.0], rollouts), [1], SHAPE, None).flops_per_answer
        for rule in (ExitRule(kind="threshold", value=0.5), ExitRule(kind="entropy", value=0.5))
    ]
    assert found[1] - found[0] == 2 * 2 * SHAPE.hidden_size * SHAPE.vocab_size, "two heads more"
    assert found[0] == answer_flops(SHAPE, len(rollout.prompt_ids), (1, 3), 4)


def test_careful_lines_do_one_operation():
    assert careful_share(["7+5=12\n12*3=36\n\\boxed{36}", "(7+5)*3=36\n36-2=34"]) == 0.75
    assert careful_share(["\\boxed{3}", ""]) is None


def test_difficulty_is_a_whole_number_of_a_column():
    prompt = Prompt(index=4, token_ids=(1,), columns={"answer": "1", "operations": 3, "name": "x"})
    assert level_of(prompt, "operations") == 3
    with pytest.raises(UserError, match=r"problem 4 has name = 'x', which is not a whole number(.|\n)*answer, oper"):
        level_of(prompt, "name")
    with pytest.raises(UserError, match="problem 4 has hops = None"):
        level_of(prompt, "hops")


def test_a_checkpoint_measured_as_eval_measures_it(random_checkpoint: Path, tmp_path: Path):
    """The same problems, rules and answers, by two commands."""
    (tmp_path / "measure.yaml").write_text(
        f"model: {{path: {random_checkpoint}}}\ntrainer: {{steps: 1}}\nrollout: {{max_new_tokens: 8}}\n"
        "eval: {source: arithmetic, limit: 6}\n"
    )
    rules = [ExitRule(kind="fixed", value=2.0), ExitRule(kind="threshold", value=0.5), ExitRule()]
    task = {"model": str(random_checkpoint), "rules": [asdict(rule) for rule in rules], "difficulty": "difficulty"}
    (tmp_path / "measure.json").write_text(json.dumps(task | {"seed": 0}))
    assert main(tmp_path) == 0
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["difficulty"] == [2, 3, 4, 2, 3, 4]
    request = EvalRequest(
        model=str(random_checkpoint), asks=(Ask(config=load_config(TrainConfig, [tmp_path / "measure.yaml"])),),
        out=tmp_path / "eval", depths=(2,), thresholds=(0.5,), sample_gate=True,
    )  # fmt: skip
    rows = json.loads(run_eval(request).read_text())["rows"]
    assert [rule["rule"] for rule in found["rules"]] == [row["name"] for row in rows]
    assert [rule["loops_per_token"] for rule in found["rules"]] == pytest.approx([row["mean_depth"] for row in rows])
    assert [rule["accuracy"] for rule in found["rules"]] == [row["accuracy"] for row in rows]
    assert load_config(TrainConfig, [tmp_path / "measure.yaml"]).eval.limit == 6


def test_a_mistake_is_one_line_and_an_exit_status(random_checkpoint: Path, tmp_path: Path, capsys):
    (tmp_path / "measure.yaml").write_text(
        f"model: {{path: {random_checkpoint}}}\ntrainer: {{steps: 1}}\neval: {{source: arithmetic, limit: 6}}\n"
    )
    rule = asdict(ExitRule(kind="fixed", value=99.0))
    task = {"model": str(random_checkpoint), "rules": [rule], "difficulty": "difficulty", "seed": 0}
    (tmp_path / "measure.json").write_text(json.dumps(task))
    assert main(tmp_path) == 1
    assert "max_depth 99 is more than 64 loops" in capsys.readouterr().err
