"""The run directory: its file names, and opening or resuming a run."""
