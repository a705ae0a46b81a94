"""Small tasks that the project makes itself: problems, gold answers, demonstrations."""
