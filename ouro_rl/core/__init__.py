"""Records and small tools that every package uses; nothing here imports torch when it is loaded."""
