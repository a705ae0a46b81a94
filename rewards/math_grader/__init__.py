"""The reward `math`: is a completion's final answer the gold answer?"""
