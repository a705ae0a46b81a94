"""Every module of more than a few lines has a test file of its name, or a line in tests/README.md that names one."""

import re
from pathlib import Path

from tests.references.places import REPOSITORY

PACKAGES = ("ouro_rl", "rollout_workers", "rewards")
LINES = 60


def own_test(module: Path) -> Path:
    """The test file with the name of `module` (relative to the repository)."""
    return Path("tests") / module.parent / f"test_{module.stem}.py"


def modules_without_own_test(root: Path) -> set[str]:
    """Modules of more than `LINES` lines whose tests are elsewhere."""
    modules = (file.relative_to(root) for package in PACKAGES for file in (root / package).rglob("*.py"))
    return {
        str(module)
        for module in modules
        if len((root / module).read_text(encoding="utf-8").splitlines()) > LINES
        and not (root / own_test(module)).exists()
    }


def listed() -> list[tuple[str, str]]:
    text = (REPOSITORY / "tests" / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+\.py)` \| `([^`]+\.py)` \|$", text, re.MULTILINE)


def test_the_search_finds_modules(tmp_path):
    for name, lines in (
        ("ouro_rl/a.py", LINES + 1),
        ("ouro_rl/b.py", LINES + 1),
        ("ouro_rl/c.py", LINES),
        ("tests/ouro_rl/test_b.py", 1),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("pass\n" * lines)
    assert modules_without_own_test(tmp_path) == {"ouro_rl/a.py"}


def test_every_module_is_tested_somewhere():
    missing = modules_without_own_test(REPOSITORY) - {module for module, _ in listed()}
    assert not missing, "add a test file of the same name, or a line in tests/README.md"


def test_the_list_is_current():
    modules = [module for module, _ in listed()]
    assert len(modules) == len(set(modules))
    gone = {module for module in modules if not (REPOSITORY / module).exists()}
    needless = {module for module in modules if (REPOSITORY / own_test(Path(module))).exists()}
    assert gone | needless == set()
    tests = {test for _, test in listed()}
    assert {test for test in tests if not (REPOSITORY / test).exists()} == set()
