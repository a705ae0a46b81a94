"""A real browser for tests of pages: headless Chromium, driven by a script that is added to the page."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ouro_rl.run_dir.report.browser import csp_hash

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_S = 300
"""Of a busy machine; a page takes seconds."""


def browser() -> str:
    """The path of the browser; skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a browser ({', '.join(NAMES)}); on Debian: apt-get install chromium")
    return found


def loaded(page: Path, folder: Path, *, width: int = 1200) -> tuple[str, list[str]]:
    """The page's markup after its scripts have run, and what it wrote to the console: errors, refusals of the CSP."""
    command = [
        browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--log-level=0",
        "--disable-dev-shm-usage",  # small in containers, and shared with the stores of Ray
        f"--user-data-dir={folder}", f"--window-size={width},1000", "--virtual-time-budget=20000", "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def driven(page: Path, folder: Path, actions: str, **options) -> tuple[object, list[str]]:
    """What `actions` return, the body of a function that runs in the page after its own script; and the console."""
    script = f"document.body.dataset.result = JSON.stringify((() => {{{actions}}})());"
    text = page.read_text(encoding="utf-8")
    text = text.replace("script-src ", f"script-src {csp_hash(script)} ", 1)
    with_actions = page.with_name("driven.html")
    with_actions.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    dom, console = loaded(with_actions, folder, **options)
    result = re.search(r'<body[^>]* data-result="([^"]*)"', dom)
    assert result, f"the actions did not come to their end: {console}"
    return json.loads(html.unescape(result[1])), console
