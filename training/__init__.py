"""Spatial transformer classifiers: transformers, data, recipes and the loop that trains them."""
