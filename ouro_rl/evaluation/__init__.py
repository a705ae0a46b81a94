"""Accuracy and depth of a policy on held-out problems, in training and in `ouro-rl eval`."""
