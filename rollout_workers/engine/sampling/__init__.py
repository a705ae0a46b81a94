"""Sampling after a pass: exits, tokens and the end of samples."""
