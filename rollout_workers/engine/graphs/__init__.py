"""Passes of static shapes, and CUDA graphs of them."""
