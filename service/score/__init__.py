"""Scores many pictures on this machine, through the engine and without HTTP: ``python -m service score``."""
