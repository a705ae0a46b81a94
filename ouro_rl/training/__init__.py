"""GRPO with recorded depths: from scored rollouts to the gradient."""
