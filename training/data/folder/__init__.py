"""A folder of pictures of the user's own: its files, their split, the sizes chosen for them, and their corners."""
