"""The documents are up to date: folders, layers, files, links, generated pages; and the README stays short."""

import re
import tomllib
from pathlib import Path

import pytest

from ouro_rl.config.loader import known_keys, section_of
from ouro_rl.config.reference import page
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.warmstart import WarmstartConfig
from tests.references.places import REPOSITORY

PACKAGES = ("ouro_rl", "rollout_workers", "rewards", "tests")
README_LINES = 150
MOST_FILES = 12
"""From config to gradient."""
DOCUMENTS = sorted(
    str(path.relative_to(REPOSITORY))
    for path in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("tests/*.md"))
)
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
TOP_FOLDERS = (*PACKAGES, "configs", "docs")


def links_of(text: str) -> list[str]:
    """Targets of links and images within the repository."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]


def anchors_of(text: str) -> set[str]:
    """GitHub's link anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def paths_of(text: str) -> set[str]:
    """Files and folders of the repository in backticks, except those with a placeholder."""
    words = re.findall(r"`([^`\n]+)`", text)
    return {word for word in words if re.fullmatch(rf"(?:{'|'.join(TOP_FOLDERS)})/[\w./\-]*", word)}


def broken(document: Path) -> list[str]:
    """Broken links of a document."""
    found = []
    for target in links_of(document.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        page = document.parent / name if name else document
        if not page.exists() or (anchor and anchor not in anchors_of(page.read_text(encoding="utf-8"))):
            found.append(target)
    return found


def test_the_search_finds_broken_links(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One word\n[a](page.md) [b](#one-word) [c](gone.md) ![d](#two) [e](https://example.org/x)")
    assert broken(page) == ["gone.md", "#two"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_are_not_broken(document):
    assert broken(REPOSITORY / document) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document):
    named = paths_of((REPOSITORY / document).read_text(encoding="utf-8"))
    assert {path for path in named if not (REPOSITORY / path).exists()} == set()


def test_every_folder_is_described():
    rows = re.findall(r"^\| `((?:[a-z_]+/)+)` \|", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE)
    folders = {
        f"{file.parent.relative_to(REPOSITORY)}/"
        for package in PACKAGES
        for file in (REPOSITORY / package).rglob("*.py")
    }
    assert len(rows) == len(set(rows))
    assert set(rows) == folders


def test_the_layers_are_those_of_the_import_contract():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    text = ARCHITECTURE.read_text(encoding="utf-8")
    section = text[text.index("\n## Layers\n") : text.index("\n## Run directory\n")]
    assert [row.replace("\\|", "|") for row in re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)] == layers


def test_the_walk_opens_few_files_and_finds_in_each_what_it_names():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    section = text[text.index("\n## From config to gradient") : text.index("\n## Layers\n")]
    rows = re.findall(r"^\| \d+ \| \[[^]]+\]\(\.\./([^)]+)\) \| ([^|]*) \|", section, re.MULTILINE)
    files = [file for file, _ in rows]
    assert files[0] == "configs/quickstart.yaml" and len(set(files)) == len(files) <= MOST_FILES
    named = [(file, name.rpartition(".")[2]) for file, read in rows for name in re.findall(r"`([\w.]+)`", read)]
    assert len(named) >= MOST_FILES
    assert [
        (file, name) for file, name in named if not re.search(rf"\b{name}\b", (REPOSITORY / file).read_text())
    ] == []


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_the_configuration_page_is_current():
    written = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == page(), "the config classes have changed: run `make docs`"


@pytest.mark.parametrize("config", [TrainConfig, WarmstartConfig])
def test_the_configuration_page_has_every_key(config):
    written = set(re.findall(r"^\| `([^`]+)` \|", page(), re.MULTILINE))
    keys = set(known_keys(config)) - {
        name for name, field in config.model_fields.items() if section_of(field.annotation)
    }
    assert len(keys) > 20
    assert keys <= {key.replace("[]", "") for key in written}


def modules_of(text: str) -> set[str]:
    """Dotted names in backticks that begin with a package whose name is not also a config section."""
    return set(re.findall(r"`((?:ouro_rl|rollout_workers)(?:\.\w+)+)`", text))


def is_there(name: str) -> bool:
    """Whether a dotted name is a folder, a module, or a name in a module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        place = REPOSITORY.joinpath(*parts[:length])
        file = place.with_suffix(".py") if place.with_suffix(".py").exists() else place / "__init__.py"
        if file.exists():
            return (
                length == len(parts) or re.search(rf"\b{parts[length]}\b", file.read_text(encoding="utf-8")) is not None
            )
    return False


def test_the_search_finds_names():
    assert modules_of("see `ouro_rl.core.jsonl` and `rewards.functions`") == {"ouro_rl.core.jsonl"}
    names = ("ouro_rl.core", "ouro_rl.launch", "ouro_rl.launch.run_training", "ouro_rl.gone", "ouro_rl.launch.gone")
    assert [is_there(name) for name in names] == [True, True, True, False, False]


@pytest.mark.parametrize("package", PACKAGES)
def test_names_cited_in_the_code_exist(package):
    gone = set()
    for file in (REPOSITORY / package).rglob("*"):
        if file.suffix in {".py", ".c", ".h"} and file != Path(__file__):
            text = file.read_text(encoding="utf-8")
            cited = {path for path in paths_of(text) if path.rpartition(".")[2] in {"py", "c", "h", "md"}}
            gone |= {f"{file.name}: {path}" for path in cited if not (REPOSITORY / path).exists()}
            gone |= {f"{file.name}: {name}" for name in modules_of(text) if not is_there(name)}
    assert gone == set()
