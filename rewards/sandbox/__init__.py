"""Runs untrusted programs. `host` is the interface from outside; everything under `inside` runs in the sandbox."""
