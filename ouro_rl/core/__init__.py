"""Shared records and small utilities; importing them does not import torch."""
