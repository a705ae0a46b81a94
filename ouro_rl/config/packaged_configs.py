"""The configs that come with ouro-rl, found by name from any folder: `quickstart` is this installation's
`configs/quickstart.yaml`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
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
    """As `find_config`, for a study: `hops`, `hops.yaml`, `study/hops.yaml` or `configs/study/hops.yaml`. Raises
    UserError for a bare name that no study has."""
    path, packaged = Path(expand(text)), packaged_studies()
    if not path.is_file() and path.parent in (Path(), Path("study"), Path("configs/study")):
        path = packaged.get(path.name.removesuffix(".yaml"), path)
    if not path.suffix and not path.exists():
        raise UserError(f"{path}: no such study; there are {', '.join(packaged)}, or give a YAML file")
    return path


def find_checkpoint(text: str) -> str:
    """The checkpoint folder that an argument names: one that exists, else one that comes with the configs, written as
    `tiny_ouro` or `configs/tiny_ouro`. Any other argument is returned as it is."""
    path = Path(text)
    if not path.exists() and path.parent in (Path(), Path("configs")):
        packaged = config_folder() / path.name
        if (packaged / "config.json").is_file():
            return str(packaged)
    return text


def find_config(text: str | Path) -> Path:
    """The config file that an argument names: a file that exists, else a packaged config, written as `quickstart`,
    `quickstart.yaml` or `configs/quickstart.yaml`. Any other argument is returned as it is, and reading it fails."""
    path = Path(expand(str(text)))
    if path.exists() and not path.is_dir():
        return path
    name = path.name if path.parent == Path("configs") else str(path)
    return packaged_configs().get(name.removesuffix(".yaml"), path)


def summary_of(file: Path) -> str:
    """What a config is for: the first statement of its opening comment."""
    with file.open(encoding="utf-8") as lines:
        return first_statement(line.strip("# \n") for line in lines)


def first_statement(lines: Iterable[str]) -> str:
    """The lines of a text up to the first that ends a sentence, or up to a blank one, as one line without its last
    mark."""
    said: list[str] = []
    for line in map(str.strip, lines):
        if not line:
            break
        said.append(line)
        if line[-1] in ".:?":
            break
    return " ".join(said).rstrip(".:")


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
