"""What a recipe is, and the committed ones."""
