"""Gate patches: what is in them, what they may be applied to, and the commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ouro_rl.cli import main as cli
from ouro_rl.core.errors import UserError
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.gate_patch import GATE, apply_patch, body_hash, extract_gate, read_patch, write_patch


def copy_of(checkpoint: Path, to: Path, change) -> Path:
    """A copy with its tensors changed by `change`, in place."""
    shutil.copytree(checkpoint, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.fixture
def trained(random_checkpoint: Path, tmp_path: Path) -> Path:
    """The checkpoint after training its gate alone."""

    def change(tensors):
        for name in GATE:
            tensors[name] = tensors[name].float() + 0.125

    return copy_of(random_checkpoint, tmp_path / "trained", change)


def test_a_gate_there_and_back(random_checkpoint: Path, trained: Path, tmp_path: Path, capsys):
    assert cli.main(["gate", "extract", str(trained), "--out", str(tmp_path / "gate.safetensors")]) == 0
    assert "33 numbers" in capsys.readouterr().out
    assert (tmp_path / "gate.safetensors").stat().st_size < 1000
    base = Path(shutil.copytree(random_checkpoint, tmp_path / "base"))
    (base / "model.safetensors").chmod(0o640)
    apply = ["gate", "apply", str(tmp_path / "gate.safetensors"), "--model", str(base)]
    assert cli.main([*apply, "--out", str(tmp_path / "out")]) == 0
    made, _ = load_policy(str(tmp_path / "out"), torch.float32)
    wanted, _ = load_policy(str(trained), torch.float32)
    for (name, one), (_, other) in zip(made.state_dict().items(), wanted.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o777 == 0o640, "as it was"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(
        file.name for file in random_checkpoint.iterdir()
    )
    assert cli.main([*apply, "--out", str(tmp_path / "out")]) == 2
    assert "is not empty; give a new folder" in capsys.readouterr().err


def test_the_folder_of_a_run_means_its_last_checkpoint(random_checkpoint: Path, trained: Path, tmp_path: Path, capsys):
    run, patch = tmp_path / "run", tmp_path / "gate.safetensors"
    shutil.copytree(random_checkpoint, run / "checkpoints" / "step-9")
    shutil.copytree(trained, run / "checkpoints" / "step-10")
    assert cli.main(["gate", "extract", str(run), "--out", str(patch)]) == 0
    assert torch.equal(read_patch(patch).weight, extract_gate(trained).weight)
    shutil.rmtree(run / "checkpoints" / "step-10")
    assert cli.main(["gate", "apply", str(patch), "--model", str(run), "--out", str(tmp_path / "out")]) == 0
    assert torch.equal(extract_gate(tmp_path / "out").weight, extract_gate(trained).weight)
    shutil.rmtree(run / "checkpoints" / "step-9")
    for command in (
        ["extract", str(run), "--out", str(patch)],
        ["apply", str(patch), "--model", str(run), "--out", str(tmp_path / "new")],
        ["calibrate", "--model", str(run), "--benchmark", "arithmetic"],
    ):
        capsys.readouterr()
        assert cli.main(["gate", *command]) == 2
        assert f"{run}: holds no checkpoint" in capsys.readouterr().err


def test_another_body_is_refused(random_checkpoint: Path, trained: Path, tmp_path: Path):
    patch = extract_gate(trained)
    other = copy_of(random_checkpoint, tmp_path / "other", lambda tensors: tensors["model.norm.weight"].add_(1e-6))
    with pytest.raises(UserError, match="this gate was trained for another body"):
        apply_patch(patch, other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_hash_is_of_the_body_alone_and_of_its_values(random_checkpoint: Path, trained: Path, tmp_path: Path):
    assert body_hash(random_checkpoint) == body_hash(trained)

    def rounded(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.bfloat16()

    def widened(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.float()

    bf16 = copy_of(random_checkpoint, tmp_path / "bf16", rounded)
    assert body_hash(bf16) != body_hash(random_checkpoint)
    fp32 = copy_of(bf16, tmp_path / "fp32", widened)
    assert body_hash(bf16) == body_hash(fp32), "training saves a bf16 checkpoint's body in fp32"


def test_the_gate_stays_in_fp32_in_a_bf16_checkpoint(random_checkpoint: Path, tmp_path: Path):
    def change(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.bfloat16()

    base = copy_of(random_checkpoint, tmp_path / "base", change)

    def train(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.float() + (1e-5 if name in GATE else 0)

    patch = extract_gate(copy_of(base, tmp_path / "trained", train))
    apply_patch(patch, base, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(tensors[GATE[0]], patch.weight) and tensors[GATE[0]].dtype == torch.float32
    assert {tensor.dtype for name, tensor in tensors.items() if name not in GATE} == {torch.bfloat16}


def test_a_checkpoint_in_parts(random_checkpoint: Path, trained: Path, tmp_path: Path):
    model, tokenizer = load_policy(str(random_checkpoint), torch.float32)
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    apply_patch(extract_gate(trained), tmp_path / "parts", tmp_path / "out")
    made, _ = load_policy(str(tmp_path / "out"), torch.float32)
    wanted, _ = load_policy(str(trained), torch.float32)
    assert all(torch.equal(one, wanted.state_dict()[name]) for name, one in made.state_dict().items())


def test_what_is_not_a_patch(random_checkpoint: Path, trained: Path, tmp_path: Path):
    write_patch(extract_gate(trained), tmp_path / "gate.safetensors")
    assert read_patch(tmp_path / "gate.safetensors").base == body_hash(random_checkpoint)
    with pytest.raises(UserError, match="is not a gate patch"):
        read_patch(trained / "model.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name in ("text.safetensors", "missing.safetensors"):
        with pytest.raises(UserError, match="cannot be read as safetensors"):
            read_patch(tmp_path / name)
    with pytest.raises(UserError, match=r"no such folder"):
        extract_gate(tmp_path / "nothing")
