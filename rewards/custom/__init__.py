"""Reward functions of the user, run in a killable process of their own."""
