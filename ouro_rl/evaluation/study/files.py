"""File names in the folder of a study's run, shared by the runner and the process that measures."""

TRAIN_FILE, TRAIN_LOG = "train.yaml", "train.log"
CONFIG_FILE, TASK_FILE, FIGURES_FILE, MEASURE_LOG = "measure.yaml", "measure.json", "figures.json", "measure.log"
TRAINED_FILE = "trained.json"
"""Written when training has ended, with its settings and minutes: a change of the evaluation alone trains nothing."""
