"""Search for the settings of a recipe that give the highest validation accuracy."""
