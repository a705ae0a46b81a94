"""How to make a run again: its command, and the software that it ran with."""

from __future__ import annotations

import shlex

from ouro_rl.run_dir.report.record import RunRecord
from ouro_rl.run_dir.report.text import escape_text


def reproduce_section(record: RunRecord) -> str:
    """HTML with the command, the versions, and the whole config; empty without a config."""
    if not record.config_text:
        return ""
    about = record.config.get("about") or {}
    versions = ", ".join(f"{name} {version}" for name, version in (about.get("versions") or {}).items())
    commit, prompts = about.get("commit"), about.get("prompts") or {}
    lines = [("Software", versions), ("Commit", commit)]
    if prompts:
        lines.append(("Prompts", f"{prompts.get('count')}, sha256 {prompts.get('sha256')}"))
    for resumed in about.get("resumed") or []:
        changes = ", ".join(f"{key} {_change(change)}" for key, change in (resumed.get("changes") or {}).items())
        lines.append((f"Resumed after step {resumed.get('after_step')}", changes or "nothing changed"))
    facts = "".join(f"<dt>{escape_text(name)}</dt><dd>{escape_text(value)}</dd>" for name, value in lines if value)
    return (
        "<h2>Make it again</h2>\n<p>From the folder that holds this run's folder. With the same software on the same "
        "kind of processor, the same seed gives the same run to the bit.</p>\n"
        f'<div class="card"><pre class="scroll">{escape_text(command_of(record))}</pre>'
        + (f'<dl class="about">{facts}</dl>' if facts else "")
        + f'</div>\n<details class="card"><summary>Configuration</summary><pre>{escape_text(record.config_text)}'
        "</pre></details>\n"
    )


def command_of(record: RunRecord) -> str:
    """The command that trains this run again, into a folder of its own."""
    again = f"run.dir={record.name}-again"
    return f"ouro-rl train {shlex.quote(f'{record.name}/config.yaml')} {shlex.quote(again)}"


def _change(change: object) -> str:
    return f"{change.get('before')} → {change.get('now')}" if isinstance(change, dict) else str(change)
