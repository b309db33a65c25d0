"""Formats of files: how each is recognised, and how its pixels are read."""
