"""Checks before a run starts: `ouro-rl check`, `ouro-rl doctor`, and the checks of every command."""
