"""The mathematics of the policy, shared by workers and trainer: exit gate, token distribution, random numbers."""
