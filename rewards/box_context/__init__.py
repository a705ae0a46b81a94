"""The sentence around a box: whether it refuses the box, or makes another value of it."""
