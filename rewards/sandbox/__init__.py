"""Runs programs that nobody vouches for. `host` is used from outside; everything under `inside` runs in the sandbox."""
