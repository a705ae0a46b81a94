"""The rollout engine: loop-level continuous batching on a depth-aware KV cache."""
