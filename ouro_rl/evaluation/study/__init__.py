"""`ouro-rl study`: many training runs, measured alike."""
