"""Config keys about depths and early stops. Messages are part of the contract: key and fix."""

import pytest

from ouro_rl.config.loader import dump_config, load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.yaml12 import parse_yaml
from ouro_rl.core.errors import UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import DepthPolicy, EarlyStop


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("model: {path: somewhere}\ntrainer: {steps: 5}\n")
    return lambda *overrides: load_config(TrainConfig, [path], overrides)


def test_defaults_are_last_exited_within_the_trained_loops_and_no_early_stop(load):
    rollout = load().rollout
    assert rollout.depth_policy() == DepthPolicy() and rollout.early_stop is None
    assert DepthPolicy().max_loops(trained=4) == 4 and DepthPolicy().kv_rule is KVRule.LAST_EXITED


def test_policy_and_early_stop_from_a_file_and_back(load, tmp_path):
    config = load(
        "rollout.kv_rule=skip", "rollout.min_depth=2", "rollout.max_depth=6", "gate.target_depth=3.5",
        "rollout.early_stop.repeat_window=64", "rollout.early_stop.hook=my.module:hopeless", "eval.kv_rule=full",
    )  # fmt: skip
    assert config.rollout.depth_policy() == DepthPolicy(kv_rule=KVRule.SKIP, min_depth=2, max_depth=6)
    assert config.rollout.early_stop.rule() == EarlyStop(every=32, repeat_window=64, hook="my.module:hopeless")
    assert config.eval.kv_rule is KVRule.FULL
    written = parse_yaml(dump_config(config))
    assert written["rollout"]["kv_rule"] == "skip" and written["eval"]["kv_rule"] == "full"
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert load_config(TrainConfig, [again], []) == config


def test_the_last_samples_of_a_group_are_anytime_samples(load):
    assert load().rollout.fixed_depths(4) == ()
    assert load("rollout.anytime=[1, 4]").rollout.fixed_depths(4) == (None, None, 1, 4)
    assert load("rollout.anytime=[2, 1, 2]").rollout.fixed_depths(4) == (None, 2, 1, 2)
    with pytest.raises(
        UserError, match=r"rollout.anytime 5 lies outside rollout's min_depth \(1\) and max_depth \(4\)"
    ):
        load("rollout.anytime=[1, 5]").check_loops(4)
    load("rollout.anytime=[1, 5]").check_loops(5)


def test_the_temperature_of_the_gate_moves_in_a_straight_line(load):
    moves = ("rollout.gate_temperature=2", "rollout.gate_temperature_end=0.7", "rollout.gate_temperature_updates=4")
    rollout = load(*moves, "rollout.exploration=0.1").rollout
    assert [rollout.gate_temperature_at(update) for update in range(4)] == pytest.approx([2, 1.675, 1.35, 1.025])
    assert rollout.gate_temperature_at(0) == 2
    assert {rollout.gate_temperature_at(update) for update in (4, 5, 100)} == {0.7}
    policies = [rollout.depth_policy(update) for update in (0, 4)]
    assert policies == [
        DepthPolicy(gate_temperature=2.0, exploration=0.1),
        DepthPolicy(gate_temperature=0.7, exploration=0.1),
    ]
    still = load("rollout.gate_temperature=0.3").rollout
    assert {still.gate_temperature_at(update) for update in (0, 7)} == {0.3}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.anytime=[1, 5]", "rollout.max_depth=4"],
         "anytime 5 lies outside rollout's min_depth (1) and max_depth (4); change its value or the bounds"),
        (["rollout.anytime=[1, 2]", "rollout.min_depth=2", "gate.target_depth=null"],
         "anytime 1 lies outside rollout's min_depth (2) and max_depth (of the model)"),
        (["rollout.anytime=[0]"], "rollout.anytime.0 must be greater than or equal to 1"),
        (["rollout.anytime=[1, 2, 3, 4]", "trainer.group_size=4"],
         "rollout.anytime fixes the depths of 4 completions, which leaves none of a group of 4 to the exit rule"),
        (["rollout.gate_temperature_end=0.5"], "gate_temperature_end and gate_temperature_updates belong together"),
        (["rollout.gate_temperature_updates=9"], "gate_temperature_end and gate_temperature_updates belong together"),
        (["rollout.gate_temperature_end=0", "rollout.gate_temperature_updates=9"],
         "rollout.gate_temperature_end must be greater than 0"),
        (["rollout.kv_rule=skp"], "rollout.kv_rule must be 'last_exited', 'full' or 'skip', but is \"skp\""),
        (["rollout.max_depth=0"], "rollout.max_depth must be greater than or equal to 1"),
        (["rollout.max_depth=65"], "rollout.max_depth must be less than or equal to 64"),
        (["rollout.min_depth=3", "rollout.max_depth=2"], "min_depth (3) is more than max_depth (2); lower it"),
        (["gate.mode=off", "rollout.max_depth=4", "rollout.exit_rule={kind: fixed, value: 5}"],
         "exit_rule: `fixed` 5 lies outside rollout's min_depth (1) and max_depth (4); change its value or the bounds"),
        (["rollout.min_depth=2", "eval.source=arithmetic", "eval.exit_rule={kind: fixed, value: 1}"],
         "eval.exit_rule: `fixed` 1 lies outside rollout's min_depth (2) and max_depth (of the model)"),
        (["rollout.max_depth=4", "gate.target_depth=5"],
         "gate.target_depth (5) cannot be met with rollout.min_depth 1"),
        (["rollout.min_depth=3", "gate.target_depth=2"],
         "gate.target_depth (2) cannot be met with rollout.min_depth 3"),
        (["gate.mode=off", "rollout.exit_rule={kind: iid, probabilities: [0.5, 0.4]}"],
         "`iid` needs probabilities that sum to 1, not to 0.9"),
        (["gate.mode=off", "rollout.exit_rule={kind: iid, value: 2, probabilities: [1.0]}"],
         "`iid` takes no value; leave it out"),
        (["gate.mode=off", "rollout.exit_rule.kind=simulated"],
         "exit_rule.kind `simulated` draws tokens at the last loop, which every token must run; set kv_rule to `full`"),
        (["eval.exit_rule={kind: confidence, value: 1.5}"], "`confidence` needs a value in (0, 1]; set it"),
        (["eval.exit_rule={kind: kl, value: null}"], "`kl` needs a value, in nats; set it"),
        (["rollout.exit_rule.probabilities=[0.5, 0.5]"], "`sample` takes no probabilities; leave them out"),
        (["rollout.early_stop={every: 8}"], "sets no test; set repeat_window, min_mean_logprob or hook"),
        (["rollout.early_stop.repeat_window=1"], "rollout.early_stop.repeat_window must be greater than or equal to 2"),
        (["rollout.early_stop.min_mean_logprob=1"], "rollout.early_stop.min_mean_logprob must be less than 0"),
        (["rollout.early_stop.hook=hopeless"], "write module.path:function or path/to/file.py:function"),
    ],
)  # fmt: skip
def test_contradictory_settings_are_reported_with_their_fix(load, overrides, message):
    with pytest.raises(UserError) as caught:
        load(*overrides)
    assert message in str(caught.value) and len(str(caught.value).splitlines()) <= 3
