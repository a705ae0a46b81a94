"""The configuration of every command: strict, frozen, and free of heavy imports."""
