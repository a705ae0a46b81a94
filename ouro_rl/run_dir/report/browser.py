"""The browser of samples in the page: its form, the samples as data, and the script that shows them (`browser.js`)."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from ouro_rl.run_dir.report.samples import FIRST_TOKENS, LAST_TOKENS, Shown, as_json
from ouro_rl.run_dir.report.text import depth_label, escape_text

Options = dict[str, str]
"""Value -> label; the first value is empty and keeps everything."""

_VERDICTS: Options = {"": "all", "right": "right", "wrong": "wrong", "unscored": "unscored", "cut": "cut off"}
_DEPTHS: Options = {"": "all", "shallow": "the shallowest third", "deep": "the deepest third"}
_ORDERS: Options = {
    "": "latest step first",
    "best": "highest reward first",
    "worst": "lowest reward first",
    "surprising": "largest advantage first",
    "deepest": "deepest first",
    "shallowest": "shallowest first",
    "longest": "longest first",
}


def script() -> str:
    """The page's only script. It needs the elements of `browser_section`."""
    return files(__package__).joinpath("browser.js").read_text(encoding="utf-8")


def csp_hash(text: str) -> str:
    """The source expression by which a Content Security Policy allows exactly this inline script."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def browser_section(shown: Shown) -> str:
    """HTML of the section, without its script. `shown` has samples."""
    loops = shown.data["loops"]
    legend = "".join(f'<li class="d{depth}">{depth_label(depth)}</li>' for depth in range(1, loops + 1))
    judge = shown.data["judge"]
    right = f" Right and wrong are what the reward <code>{escape_text(judge)}</code> says." if judge else ""
    steps: Options = {"": "all", **{str(s): f"{s:,}" for s in dict.fromkeys(g["step"] for g in shown.data["groups"])}}
    return (
        '<section id="browser"><h2>Samples</h2>\n'
        f"<p>{_extent(shown)}{right} Hover over a token, tap it, or focus a completion and press the arrow keys: its "
        "loops, its log-prob, and how likely the gate was to leave after each of them.</p>\n"
        + (f'<ul class="legend" aria-label="Depth of a token">{legend}</ul>\n' if legend else "")
        + '<noscript><p class="muted note">The samples need JavaScript; the rest of the page does not.</p></noscript>\n'
        f'<form class="card filters" aria-label="Which samples">{_select("verdict", "Verdict", _VERDICTS)}'
        f"{_select('depth', 'Depth', _DEPTHS)}{_select('step', 'Step', steps)}"
        '<label>Reward from <input name="low" type="number" step="any"></label>'
        '<label>to <input name="high" type="number" step="any"></label>'
        f'{_select("order", "Order", _ORDERS)}<button type="reset">Show all</button></form>\n'
        '<p id="found" class="muted note" role="status"></p>\n<div id="samples" class="grid"></div>\n'
        '<p class="foot"><button id="more" type="button" hidden>Show more</button></p>\n'
        '<div id="tip" role="status" hidden></div>\n'
        f'<script type="application/json" id="rollouts">{as_json(shown.data)}</script></section>\n'
    )


def no_samples(rollouts_kept: bool) -> str:
    why = (
        "No rollouts yet."
        if rollouts_kept
        else "This run keeps no rollouts (<code>run.rollouts: none</code>); with <code>all</code>, or a number N for "
        "every N-th batch, they are here."
    )
    return f'<h2>Samples</h2>\n<p class="muted">{why}</p>\n'


def _extent(shown: Shown) -> str:
    """What is here and what is left out, in words."""
    steps = (
        f"all {shown.steps_recorded:,} recorded steps"
        if shown.steps == shown.steps_recorded and shown.steps > 1
        else "the one recorded step"
        if shown.steps_recorded == 1
        else f"{shown.steps:,} of the {shown.steps_recorded:,} recorded steps, evenly spread"
    )
    read = "the groups that were read, the file of a step being long" if shown.part else "their groups"
    groups = (
        f"all {shown.groups:,} groups"
        if shown.groups == shown.groups_read and not shown.part
        else f"{shown.groups:,} of {shown.groups_read:,} groups, from the lowest to the highest reward of {read}"
    )
    return (
        f"{shown.samples:,} samples: {groups} of {steps}. Of a completion of more than "
        f"{FIRST_TOKENS + LAST_TOKENS} tokens, the beginning and the end; means are over all of it."
    )


def _select(name: str, label: str, options: Options) -> str:
    entries = "".join(f'<option value="{escape_text(value)}">{text}</option>' for value, text in options.items())
    return f'<label>{label} <select name="{name}">{entries}</select></label>'
