"""Paths that tests need."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs"
SHARED = REPOSITORY.parent / "shared"
"""Reference data next to the repository; tests that need it are skipped if it is absent."""
