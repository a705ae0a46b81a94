"""Merging, checking and dumping configs. Messages are part of the contract: file, key and fix, in at most three
lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.config.loader import dump_config, load_config
from ouro_rl.config.sizes import derived_sizes
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.config.yaml12 import parse_yaml, to_yaml
from ouro_rl.core.errors import UserError
from tests.references.config_cases import launched, refusal
from tests.references.places import CONFIGS

# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("6e-5", 6e-5),
        ("1.5E3", 1500.0),
        ("-2e+1", -20.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("20_000", 20_000),
        ("010", 10),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("none", "none"),
        ("null", None),
        ("", None),
        ("e5", "e5"),
        ("1e", "1e"),
        ("[1, 2e0]", [1, 2.0]),
        ("'1e-6'", "1e-6"),
    ],
)
def test_yaml_is_read_as_version_1_2(text: str, value: object) -> None:
    read = parse_yaml(text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "value", ["1e-6", "off", "null", "true", "", "1:30", "a\nb\n", " x ", "é", "12", "# no", "a: b", "-", "<<"]
)
def test_strings_written_as_yaml_stay_strings(value: str) -> None:
    assert parse_yaml(to_yaml({"key": value, "list": [value]})) == {"key": value, "list": [value]}


# --- merging ----------------------------------------------------------------------------------------------------------


def test_files_merge_left_to_right_and_overrides_win(tmp_path: Path, minimal: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("trainer: {lr: 6e-5, group_size: 4}\ndata:\n  operations: [5]\n")
    config = load_config(TrainConfig, [minimal, overlay], ["trainer.group_size=16", "run.dir=runs/x", "gate.mode=off"])
    assert (config.trainer.steps, config.trainer.lr, config.trainer.group_size) == (5, 6e-5, 16)
    assert config.data.operations == (5,)
    assert config.run.dir == Path("runs/x")
    assert config.gate.mode == "off"


def test_an_integer_is_accepted_as_a_float_and_nothing_else_is_converted(minimal: Path) -> None:
    config = load_config(TrainConfig, [minimal], ["rollout.temperature=1"])
    assert config.rollout.temperature == 1.0 and isinstance(config.rollout.temperature, float)
    for override in ("trainer.steps='5'", "trainer.steps=5.0", "trainer.steps=true", "run.dir=3", "trainer.lr='1e-5'"):
        refusal(minimal, override)


def test_a_run_can_be_repeated_from_its_own_config(minimal: Path) -> None:
    config = load_config(TrainConfig, [minimal])
    minimal.write_text(dump_config(config) + "about: {commit: abc, versions: {torch: 2}}\n")
    assert load_config(TrainConfig, [minimal]) == config


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("trainer.stps=4", ["trainer.stps", "did you mean trainer.steps?"]),
        ("gruop_size=3", ["gruop_size", "did you mean trainer.group_size?"]),
        ("trainer.target_depth=3", ["unknown key trainer.target_depth", "did you mean gate.target_depth?"]),
        ("trainer.steps.more=4", ["trainer.steps must be a whole number"]),
        ("rewards.functions=[{nam: math}]", ["rewards.functions.0.nam", "did you mean rewards.functions.name?"]),
        ("corpus.careful=0.5", ["it is a key of configs for `ouro-rl warmstart`"]),
        ("lr=1e-5", ["unknown key lr; here it is trainer.lr (the exit gate has its own, gate.lr)"]),
        ("optim.lr=1e-5", ["unknown key optim; here it is trainer.lr"]),
        ("train.lr=1e-5", ["unknown key train; did you mean trainer.lr?"]),
        ("gates.lr=1e-5", ["unknown key gates; did you mean gate.lr?"]),
        ("num_generations=8", ["unknown key num_generations; here it is trainer.group_size"]),
        ("actor_rollout_ref.rollout.n=8", ["here it is trainer.group_size"]),
        ("temperature=1", ["did you mean rollout.temperature?"]),
        ("seed=1", ["did you mean run.seed?"]),
        ("max_prompt_tokens=1", ["did you mean data.max_prompt_tokens?"]),
        ("trainer.beta=0.1", ["unknown key trainer.beta", "no KL penalty"]),
        ("limit=3", ["did you mean data.limit or eval.limit?"]),
        ("qqq.qqq=1", ["unknown key qqq", "known here: model, data"]),
        ("trainer.lr=fast", ["trainer.lr must be a number", '"fast" (string)']),
        ("trainer.lr=-1", ["trainer.lr must be greater than or equal to 0", "-1"]),
        ("trainer.lr=.inf", ["trainer.lr must be a finite number"]),
        ("trainer=3", ["trainer must be a section"]),
        ("trainer.loss_type=ppo", ["trainer.loss_type must be 'grpo'", '"ppo"']),
        ("trainer.group_size=1", ["trainer.group_size", "a group needs at least 2 completions to compare"]),
        (
            "trainer.micro_batch=7",
            ["prompts_per_step (16) x group_size (8) = 128", "micro batches of 7", "set micro_batch to 4"],
        ),
        ("trainer.lr_warmup=5", ["lr_warmup has no effect", "constant_with_warmup"]),
        ("rewards.functions=[]", ["rewards.functions must have at least 1 item"]),
        ("rollout.top_p=1.5", ["rollout.top_p must be less than or equal to 1", "1.5", "1: all"]),
        ("rollout.top_p=0", ["rollout.top_p must be greater than 0"]),
        ("rollout.top_k=-1", ["rollout.top_k must be greater than or equal to 0", "0: all"]),
        ("rollout.top_k=0.5", ["rollout.top_k must be a whole number"]),
        ("rollout.min_p=1", ["rollout.min_p must be less than 1"]),
        ("rollout.topp=0.9", ["unknown key rollout.topp", "did you mean rollout.top_p?"]),
        ("rollout.gate_temperature=0", ["rollout.gate_temperature must be greater than 0"]),
        ("rollout.stop_strings=['']", ["rollout.stop_strings.0", "at least 1 character"]),
        ("rollout.stop_strings=x", ["rollout.stop_strings must be a list"]),
        ("rollout.stop_token_ids=[-1]", ["rollout.stop_token_ids.0 must be greater than or equal to 0"]),
        (
            "rollout.logit_processors=[mine]",
            ["rollout.logit_processors.0", "'mine' does not name a function; write module.path:function"],
        ),
        ("data.operations=[0]", ["data.operations.0 must be greater than or equal to 1"]),
        ("rollout.exit_rule={kind: fixed, value: 1.5}", ["rollout.exit_rule", "whole number of loops"]),
        ("run.seed=4294967296", ["run.seed must be less than or equal to 2147483647"]),
        ("run.seed=-1", ["run.seed must be greater than or equal to 0"]),
        ("trainer.steps=[1", ["not YAML"]),
        ("trainer={steps: 1, steps: 2}", ["'steps' is set twice"]),
    ],
)
def test_a_mistake_names_override_key_and_fix(minimal: Path, override: str, parts: list[str]) -> None:
    text = refusal(minimal, override)
    for part in [override, *parts]:
        assert part in text


def test_a_mistake_in_a_file_names_the_file_that_made_it(tmp_path: Path, minimal: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("trainer:\n  lerning_rate: 3\n")
    with pytest.raises(UserError, match=r"overlay\.yaml: unknown key trainer\.lerning_rate"):
        load_config(TrainConfig, [minimal, overlay])


def test_a_group_of_equal_completions_is_refused(minimal: Path) -> None:
    """Greedy tokens at a depth that is not drawn."""
    certain = ["gate.mode=off", "rollout.exit_rule={kind: fixed, value: 2}"]
    assert "makes all completions of a group equal" in refusal(minimal, *certain, "rollout.top_k=1")
    load_config(TrainConfig, [minimal], [*certain, "rollout.top_k=2"])
    load_config(TrainConfig, [minimal], ["rollout.top_k=1"])  # depths are drawn


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["gate.target_depth=9"], "gate.target_depth 9 is more than the 4 loops .*the model's total_ut_steps"),
        (["gate.target_depth=2.5", "rollout.max_depth=2"], "gate.target_depth .2.5. cannot be met"),
        (["rollout.min_depth=5"], "rollout.min_depth 5 is not in 1..max_depth, which is 4"),
        (["gate.mode=off", "rollout.exit_rule={kind: fixed, value: 5}"], "rollout.exit_rule: .*max_depth .4."),
        (["eval.source=arithmetic", "eval.exit_rule={kind: fixed, value: 5}"], "eval.exit_rule: .*max_depth .4."),
        (["gate.target_depth=4"], None),
        (["gate.target_depth=5", "rollout.max_depth=6"], None),
        (["eval.exit_rule={kind: fixed, value: 5}"], None),  # without an evaluation
    ],
)
def test_depths_that_the_model_does_not_have(minimal: Path, overrides: list[str], problem: str | None) -> None:
    def check() -> None:
        load_config(TrainConfig, [minimal], overrides).check_loops(4)

    if problem is None:
        check()
    else:
        with pytest.raises(UserError, match=problem):
            check()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("trainer: {steps: 5}\n", "model is missing; set model.path"),
        ("model: {path: x}\ntrainer: {}\n", "trainer.steps is missing"),
        ("", "model is missing"),
        ("- a\n", "must hold sections"),
        ("just text", "must hold sections"),
        ("a: [1\n", "not YAML"),
        ("a: 1\na: 2\n", "line 2: 'a' is set twice"),
        ("1: 2\n", "a key must be a string"),
        ("trainer:\n\tsteps: 5\n", "not YAML: line 2"),
    ],
)
def test_files_that_are_not_a_config(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(content)
    text = refusal(path)
    assert part in text and "job.yaml" in text


def test_files_that_cannot_be_read(tmp_path: Path, minimal: Path) -> None:
    assert f"no such config file; there is {minimal}" in refusal(tmp_path / "jbo.yaml")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not text" in refusal(tmp_path / "binary.yaml")


# --- the configs in the repository ------------------------------------------------------------------------------------

WARM = [CONFIGS / f"{name}_warmstart.yaml" for name in ("tiny", "code", "hops", "walks")]
SMALL = [
    CONFIGS / "quickstart.yaml",
    CONFIGS / "math_example.yaml",
    CONFIGS / "code_example.yaml",
    CONFIGS / "hops.yaml",
    CONFIGS / "walks.yaml",
]
MATH = [CONFIGS / "math_ouro_1.4b_thinking.yaml", CONFIGS / "math_ouro_2.6b_thinking.yaml"]


@pytest.mark.parametrize(
    ("cls", "paths", "world"),
    [
        *[(WarmstartConfig, [path], 1) for path in WARM],
        *[(TrainConfig, [path], 1) for path in SMALL],
        *[(TrainConfig, [path], 1) for path in MATH],
        *[(TrainConfig, [path, CONFIGS / "gpus_8.yaml"], 4) for path in MATH],
    ],
    ids=lambda value: "+".join(path.stem for path in value) if isinstance(value, list) else "",
)
def test_our_configs_load_and_survive_a_round_trip(cls, paths, world, tmp_path, monkeypatch) -> None:
    launched(monkeypatch, str(world))
    config = load_config(cls, paths)
    printed = tmp_path / "printed.yaml"
    printed.write_text(dump_config(config))
    assert load_config(cls, [printed]) == config
    skipped = isinstance(config, WarmstartConfig) and config.stage_two.steps == 0
    assert {name for name, size in derived_sizes(config).items() if size <= 0} == (
        {"stage II demonstrations"} if skipped else set()
    )


def test_every_config_file_is_tested() -> None:
    tested = {"gpus_8.yaml", *(path.name for path in [*WARM, *SMALL, *MATH])}
    assert {path.name for path in CONFIGS.glob("*.yaml")} == tested


def test_prompts_of_thinking_checkpoints_open_the_thinking_tag() -> None:
    for path in MATH:
        config = load_config(TrainConfig, [path])
        assert config.data.assistant_prefix == "<think>\n"
        assert config.rewards.functions[0].kwargs == {"thinking": True}


def test_a_line_break_typed_in_a_shell(tmp_path: Path) -> None:
    r"""`\n` is one in texts of the command line, and always in the start of an answer and in stop strings."""
    job = tmp_path / "job.yaml"
    job.write_text(
        "model: {path: m}\ntrainer: {steps: 1}\nrollout: {stop_strings: ['a\\n']}\n"
        "data: {assistant_prefix: <think>\\n, prompt_suffix: 'is $a \\neq b$?'}\n"
    )
    config = load_config(TrainConfig, [job])
    assert config.data.assistant_prefix == "<think>\n" and config.rollout.stop_strings == ("a\n",)
    assert config.data.prompt_suffix == "is $a \\neq b$?", "in a file it is LaTeX"
    typed = ["data.assistant_prefix=<think>\\n", "data.prompt_suffix=\\nBox it.", "data.system_prompt=Be\\nbrief."]
    data = load_config(TrainConfig, [job], typed).data
    assert (data.assistant_prefix, data.prompt_suffix, data.system_prompt) == ("<think>\n", "\nBox it.", "Be\nbrief.")
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(TrainConfig, [tmp_path / "again.yaml"]) == config
