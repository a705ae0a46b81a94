"""The text around an answer: whether it refuses the answer, takes it back, or makes another value of it."""
