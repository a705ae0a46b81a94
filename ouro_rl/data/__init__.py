"""Prompts: from a data set's rows to token ids."""
