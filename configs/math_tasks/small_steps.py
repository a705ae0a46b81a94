"""A reward of one's own, in five lines: the share of a solution's lines that do a single operation."""


def small_steps(completions, **columns):
    texts = [completion[0]["content"] for completion in completions]
    lines = [[line for line in text.splitlines() if "=" in line] for text in texts]
    return [sum(sum(map(line.count, "+-*")) == 1 for line in found) / max(1, len(found)) for found in lines]
