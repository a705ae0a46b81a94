"""Killable worker processes, one deadline and one memory limit an item."""
