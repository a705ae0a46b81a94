"""User-defined reward functions, each run in its own killable process."""
