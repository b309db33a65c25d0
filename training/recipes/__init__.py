"""Recipes: their definition, and the committed ones."""
