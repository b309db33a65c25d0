"""Geometry, transformers, localisation and classifiers."""
