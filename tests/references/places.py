"""Where tests find what is not a module."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs"
SHARED = REPOSITORY.parent / "shared"
"""Reference data beside the repository; tests that need it are skipped where it is absent."""
