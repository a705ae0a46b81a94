"""Expressions of answers: their grammar, their trees, and their values in ball arithmetic."""
