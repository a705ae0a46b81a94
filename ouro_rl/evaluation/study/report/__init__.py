"""The page of a study: frontiers, paired comparisons, plots."""
