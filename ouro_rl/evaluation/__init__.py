"""Accuracy and depth of a policy on held-out problems, in training and by `ouro-rl eval`."""
