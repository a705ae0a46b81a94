"""Configuration of every command: strict, frozen, and without heavy imports."""
