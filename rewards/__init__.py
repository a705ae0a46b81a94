"""Verifiable rewards, computed in killable processes. Needs neither torch nor Ray nor transformers.

This file imports nothing on purpose: worker processes import single modules and must start fast.
"""
