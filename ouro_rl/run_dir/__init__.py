"""The run directory: file names and records, and opening or resuming a run."""
