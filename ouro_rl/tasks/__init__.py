"""Small generated tasks: problems, gold answers, demonstrations."""
