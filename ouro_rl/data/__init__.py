"""Turns the rows of a data set into tokenized prompts."""
