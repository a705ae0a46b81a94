"""There are no import cycles between files or between folders.

`ouro_rl` itself is excluded: it is the entry point (`import ouro_rl`, `python -m ouro_rl`) and the base of all."""

from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

PACKAGES = ("ouro_rl", "rewards", "rollout_workers")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """The imports of each file."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    front_doors = {"ouro_rl", "ouro_rl.__main__"}
    modules = graph.modules - front_doors
    return {module: graph.find_modules_directly_imported_by(module) - front_doors for module in modules}


def circle(imports: dict[str, set[str]]) -> list[str] | None:
    """One import cycle, or None."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def folders(imports: dict[str, set[str]], depth: int) -> dict[str, set[str]]:
    """The imports of each folder: names of `depth` parts, for files that are at least that deep."""
    found = defaultdict(set)
    for module, imported in imports.items():
        found[_folder(module, depth)] |= {_folder(name, depth) for name in imported}
    return {folder: others - {folder} for folder, others in found.items()}


def _folder(module: str, depth: int) -> str:
    return ".".join(module.split(".")[:depth])


def test_the_search_finds_a_cycle():
    assert set(circle({"a.x": {"b.y"}, "b.y": {"c.z"}, "c.z": {"a.x"}})) == {"a.x", "b.y", "c.z"}
    assert set(circle(folders({"a.x": {"b.y"}, "b.w": {"a.v"}}, 1))) == {"a", "b"}


def test_no_files_import_each_other(imports):
    assert len(imports) > 100
    assert circle(imports) is None


@pytest.mark.parametrize("depth", [2, 3])
def test_no_folders_import_each_other(imports, depth):
    assert circle(folders(imports, depth)) is None
