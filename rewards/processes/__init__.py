"""Killable worker processes with a deadline and a memory limit per item."""
