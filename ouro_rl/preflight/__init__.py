"""`ouro-rl check`: what can be found wrong before a run starts."""
