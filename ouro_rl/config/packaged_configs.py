"""The configs that come with ouro-rl, found by name from any folder: `quickstart` is this installation's
`configs/quickstart.yaml`."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

from ouro_rl.config.yaml12 import parse_yaml
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import expand, texts_in


def config_folder() -> Path:
    """The folder of the configs: inside an installed package, next to the package in a source tree."""
    package = Path(str(resources.files("ouro_rl")))
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def packaged_configs() -> dict[str, Path]:
    """Every packaged config by its name, such as `quickstart`."""
    return {file.stem: file for file in sorted(config_folder().glob("*.yaml"))}


def packaged_studies() -> dict[str, Path]:
    """Every packaged study by its name, such as `hops`."""
    return {file.stem: file for file in sorted((config_folder() / "study").glob("*.yaml"))}


def find_study(text: str) -> Path:
    """As `find_config`, for a study: `hops`, `hops.yaml`, `study/hops.yaml` or `configs/study/hops.yaml`."""
    path = Path(expand(text))
    if not path.is_file() and path.parent in (Path(), Path("study"), Path("configs/study")):
        return packaged_studies().get(path.name.removesuffix(".yaml"), path)
    return path


def find_config(text: str | Path) -> Path:
    """The config file that an argument names: a file that exists, else a packaged config, written as `quickstart`,
    `quickstart.yaml` or `configs/quickstart.yaml`. Any other argument is returned as it is, and reading it fails."""
    path = Path(expand(str(text)))
    if path.exists() and not path.is_dir():
        return path
    name = path.name if path.parent == Path("configs") else str(path)
    return packaged_configs().get(name.removesuffix(".yaml"), path)


def summary_of(file: Path) -> str:
    """What a config is for: the first line of its opening comment."""
    with file.open(encoding="utf-8") as lines:
        return next(lines).strip("#.: \n")


def copy_config(name: str, folder: Path) -> list[Path]:
    """Copy a packaged config and the files next to it that it refers to, so that the copy runs. Returns the new paths.

    Raises UserError, before anything is written, if there is no such config or a target already exists."""
    source = packaged_configs().get(name.removesuffix(".yaml"))
    if source is None:
        raise UserError(f"no packaged config {name!r}; there are {', '.join(packaged_configs())}")
    pairs = [(path, folder / path.relative_to(source.parent)) for path in [source, *files_of(source)]]
    for _, target in pairs:
        if target.exists():
            raise UserError(f"{target} already exists; give another folder with --to DIR, or move it away")
    try:
        for path, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
    except OSError as error:
        raise UserError(f"--to {folder}: cannot be written ({error.strerror}); give a writable folder") from error
    return [target for _, target in pairs]


def files_of(config: Path) -> list[Path]:
    """Files and folders next to a config that its values refer to; for `file.py:function`, the file."""
    named = {
        config.parent / text.partition(":")[0]
        for _, text in texts_in(parse_yaml(config.read_text(encoding="utf-8")))
        if text
    }
    return sorted(path for path in named if path != config.parent and path.exists())
