"""`ouro-rl`, and the same as `python -m ouro_rl`."""

import sys


def main() -> int:
    """Run the command in `sys.argv`. Returns the exit status, also of Ctrl-C while the command line is imported."""
    try:
        from ouro_rl.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("ouro-rl: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":  # spawned reward processes import this module again
    raise SystemExit(main())
