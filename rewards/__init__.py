"""Verifiable rewards: scores one can trust, made in killable processes. Needs no torch, no Ray, no transformers.

Nothing is imported here on purpose: worker processes import single modules, and must start fast.
"""
