"""`python -m ouro_rl`: the same as `ouro-rl`."""

from ouro_rl.cli.main import main

if __name__ == "__main__":  # spawned reward processes import this module again
    raise SystemExit(main())
