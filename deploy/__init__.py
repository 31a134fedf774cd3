"""Parcours' deployment: scores, serving and jobs, which meet the trainer through the SavedModel only."""
