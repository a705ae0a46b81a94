"""`ouro-rl warmstart`: a small looped model from scratch (Stage I and II of arXiv 2510.25741)."""
