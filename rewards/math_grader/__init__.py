"""The reward `math`: grades a completion's final answer against the gold answer."""
