"""A checkpoint is whole or it is not, and then the reason is said."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ouro_rl.run_dir.manifest import MANIFEST_FILE, damage, read_manifest, write_manifest

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "sub/config.json")


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "step-4", {"a": torch.ones(3, 5), "b": torch.arange(7), "c": torch.zeros(0)})


def write(folder, tensors):
    (folder / "sub").mkdir(parents=True)
    for name in FILES[1:]:
        (folder / name).write_bytes(name.encode() * 9)
    save_file(tensors, folder / FILES[0])
    write_manifest(folder, step=4, processes=2)
    return folder


def test_what_was_just_written_is_whole(folder):
    assert damage(folder) is None and damage(folder, thorough=False) is None
    manifest = read_manifest(folder)
    assert (manifest["step"], manifest["processes"]) == (4, 2) and set(manifest["files"]) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_any_file_that_is_missing_or_cut_is_found_without_reading(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert "bytes instead of" in damage(folder, thorough=False) and name in damage(folder)
    (folder / name).unlink()
    assert f"{name} is missing" in damage(folder, thorough=False)


@pytest.mark.parametrize("name", FILES)
def test_a_single_bit_is_found(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert damage(folder, thorough=False) is None
    assert f"{name} is not the file that was written" in damage(folder)


@pytest.mark.parametrize(
    "content,part",
    [(None, "has no"), ("{", "cannot be read"), ("[]", "not one of this version"), ('{"format": 1}', "not one of"),
     ('{"format": 1, "step": 4, "processes": 1, "files": {"x": {"size": "2"}}}', "not one of"),
     ('{"format": 9, "step": 4, "processes": 1, "files": {}}', "not one of")],
)  # fmt: skip
def test_without_a_manifest_it_is_not_whole(folder, content, part):
    (folder / MANIFEST_FILE).unlink()
    if content is not None:
        (folder / MANIFEST_FILE).write_text(content)
    assert part in damage(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(tmp_path, dtype, value):
    largest = torch.full((2, 3), torch.finfo(dtype).max, dtype=dtype)
    assert damage(write(tmp_path / "fine", {"x": largest, "y": -largest})) is None
    largest[1, 2] = value
    odd = {"first": torch.ones(1, dtype=torch.int8), "wrong.weight": largest}
    assert damage(write(tmp_path / "bad", odd)) == "its weights are not finite (wrong.weight)"


def test_a_hash_is_that_of_sha256sum(folder):
    import hashlib

    entry = json.loads((folder / MANIFEST_FILE).read_text())["files"]["optimizer.pt"]
    assert entry == {"size": 108, "sha256": hashlib.sha256(b"optimizer.pt" * 9).hexdigest()}
