"""`python -m ouro_rl` is `ouro-rl`."""

from ouro_rl.cli.main import main

if __name__ == "__main__":  # reward processes that are spawned import this module again
    raise SystemExit(main())
