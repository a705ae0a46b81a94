"""Makes train.jsonl and heldout.jsonl in this folder: small arithmetic, with gold answers spelled as in real data.

python configs/math_tasks/generate.py
"""

import itertools
import json
import random
from pathlib import Path

from ouro_rl.tasks.arithmetic import problems
from ouro_rl.tasks.held_out import distinct

SPELLINGS = (
    "{n}",
    "$n = {n}$",
    "\\frac{{{twice}}}{{2}}",
    "{n}.0",
    "{n} \\text{{ units}}",
    "\\boxed{{{n}}}",
    "We calculate step by step.\n#### {n}",
    "\\left( {n} \\right)",
)


def rows(count: int, seed: int, *, held_out: bool) -> list[str]:
    rng = random.Random(seed)
    found = itertools.islice(distinct(problems(seed, (3, 4) if held_out else (2, 3, 4), held_out=held_out)), count)
    return [
        json.dumps({"problem": one.text, "answer": rng.choice(SPELLINGS).format(n=one.answer, twice=2 * one.answer)})
        + "\n"
        for one in found
    ]


def files() -> dict[str, str]:
    return {
        "train.jsonl": "".join(rows(1500, 1, held_out=False)),
        "heldout.jsonl": "".join(rows(200, 2, held_out=True)),
    }


if __name__ == "__main__":
    for name, text in files().items():
        (Path(__file__).parent / name).write_text(text, encoding="utf-8")
