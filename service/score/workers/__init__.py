"""Processes that score rows: those of this machine, or actors of a Ray cluster."""
