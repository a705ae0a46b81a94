"""Which samples and prompts run in each pass."""
