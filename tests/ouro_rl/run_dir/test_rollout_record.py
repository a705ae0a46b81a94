import json
from dataclasses import replace

from ouro_rl.core.rollout import Prompt, Rollout, ScoredRollout, WeightChange
from ouro_rl.run_dir.rollout_record import exit_probs, question_of, rollout_record

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "<think>"},
]


def test_a_record_has_the_question_and_the_gold_answer():
    rollout = Rollout(
        prompt_index=3, sample_index=0, prompt_ids=(1,), completion_ids=(2,), token_logprobs=(-0.5,), depths=(2,),
        depth_logprobs=(-0.1,), policy_version=0, temperature=1.0, finish_reason="stop",
    )  # fmt: skip
    scored = ScoredRollout(
        rollout=rollout, completion="2", rewards={"math": 1.0}, statuses={"math": "correct"}, reward=1.0
    )
    prompt = Prompt(index=3, token_ids=(1,), messages=MESSAGES, columns={"answer": [2]})
    record = rollout_record(scored, 0.25, 7, ["2"], prompt)
    assert json.loads(json.dumps(record))["question"] == "1 + 1?"
    assert record["answer"] == "[2]"  # as text, whatever the data has
    assert rollout_record(scored, 0.25, 7, ["2"], Prompt(index=3, token_ids=(1,)))["answer"] is None


def test_the_gate_by_loop_up_to_the_depth():
    rollout = Rollout(
        prompt_index=0, sample_index=0, prompt_ids=(1,), completion_ids=(2, 3), token_logprobs=(0.0, 0.0),
        depths=(1, 3), depth_logprobs=(0.0, 0.0), exit_shares=bytes([255, 0, 0, 51, 0, 102]), policy_version=0,
        temperature=1.0, finish_reason="stop",
    )  # fmt: skip
    assert exit_probs(rollout) == [[1.0], [0.2, 0.0, 0.4]]
    assert exit_probs(replace(rollout, exit_shares=b"")) == []
    empty = replace(rollout, completion_ids=(), depths=(), exit_shares=b"")
    assert exit_probs(empty) == []


def test_a_record_says_which_weights_drew_which_token():
    rollout = Rollout(
        prompt_index=3, sample_index=0, prompt_ids=(1,), completion_ids=(2, 2, 2), token_logprobs=(-0.5,) * 3,
        depths=(2,) * 3, depth_logprobs=(-0.1,) * 3, policy_version=4, temperature=1.0, finish_reason="stop",
    )  # fmt: skip
    scored = ScoredRollout(rollout=rollout, completion="2", rewards={}, statuses={}, reward=1.0)
    prompt = Prompt(index=3, token_ids=(1,))
    plain = rollout_record(scored, 0.25, 7, [], prompt)
    assert (plain["policy_version"], plain["token_versions"], plain["weight_changes"]) == (4, (), [])
    changed = replace(rollout, weight_changes=(WeightChange(start=1, version=5, recomputed=False),))
    record = rollout_record(replace(scored, rollout=changed), 0.25, 7, [], prompt)
    assert (record["policy_version"], record["token_versions"]) == (4, (4, 5, 5))
    assert record["weight_changes"] == [{"start": 1, "version": 5, "recomputed": False}]


def test_without_a_message_of_the_user_there_is_no_question():
    assert question_of(Prompt(index=0, token_ids=(1,))) == ""
