"""Which samples and prompts run in a pass."""
