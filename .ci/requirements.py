"""Requirements out of pyproject.toml, one a line; needs nothing but Python.

    python .ci/requirements.py build [MORE...]     what building needs
    python .ci/requirements.py newest [MORE...]    everything, without upper bounds

What is given as MORE is added as it is; one for a package of the list takes its place.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def build() -> list[str]:
    return _pyproject()["build-system"]["requires"]


def newest() -> list[str]:
    project = _pyproject()["project"]
    return [without_upper_bound(text) for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]


def without_upper_bound(requirement: str) -> str:
    """`a>=1,<2; marker` as `a>=1; marker`."""
    specifiers, semicolon, marker = requirement.partition(";")
    return re.sub(r",?\s*<=?[^,]*", "", specifiers).strip() + semicolon + marker


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower()


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def main() -> None:
    kind, *more = sys.argv[1:]
    replaced = {name_of(text) for text in more}
    lines = [text for text in {"build": build, "newest": newest}[kind]() if name_of(text) not in replaced]
    print(*lines, *more, sep="\n")


if __name__ == "__main__":
    main()
