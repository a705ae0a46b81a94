"""README's tree names every module that there is, and none that is gone."""

import re

from tests.references.places import REPOSITORY


def test_the_tree_is_whole():
    text = (REPOSITORY / "README.md").read_text()
    tree = text[text.index("## The tree") :]
    named, folder = set(), ""
    for line in tree[tree.index("```") :].splitlines()[1:]:
        if line.startswith("```"):
            break
        if match := re.match(r"(\S+)/$", line):
            folder = match[1]
        elif match := re.match(r"    (\S+\.(?:py|c|h)) ", line):
            named.add(f"{folder}/{match[1]}")
    packages = [REPOSITORY / name for name in ("ouro_rl", "rollout_workers", "rewards")]
    found = {
        str(path.relative_to(REPOSITORY))
        for package in packages
        for path in package.rglob("*.[pch]*")
        if path.suffix in {".py", ".c", ".h"} and not path.name.startswith("__")
    }
    assert named == found
