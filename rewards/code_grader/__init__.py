"""The reward `code`: runs a completion's program in a sandbox and compares its values outside of it."""
