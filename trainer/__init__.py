"""Parcours' trainer: from transformed records to an evaluated SavedModel."""

__version__ = "0.1.0"
