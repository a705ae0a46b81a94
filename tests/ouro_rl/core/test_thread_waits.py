import os
import subprocess
import sys

import pytest

from ouro_rl.core.thread_waits import SETTINGS, WAITS, wait_passively
from tests.references.places import REPOSITORY


@pytest.mark.parametrize("name", SETTINGS)
def test_user_settings_are_kept(name):
    environment = {name: "7"}
    wait_passively(environment)
    assert environment == {name: "7"}


def test_torch_uses_the_settings_if_the_package_is_imported_first():
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS} | {
        "OMP_DISPLAY_ENV": "verbose"
    }
    done = subprocess.run(
        [sys.executable, "-c", "import os, ouro_rl, torch; print({**os.environ})"],
        env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(f"'{name}': '{value}'" in done.stdout for name, value in WAITS.items()), "children would not inherit it"
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch does not use GNU OpenMP here")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert f"GOMP_SPINCOUNT = '{WAITS['GOMP_SPINCOUNT']}'" in done.stderr
