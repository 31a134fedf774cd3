"""Parcours' preprocessing: from an events table to transformed records."""
