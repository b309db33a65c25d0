"""Read a folder of pictures as the command that begins a run does."""

from pathlib import Path

from training.data.folder.corners import Outline
from training.data.folder.labels import find_labels
from training.data.folder.source import Entry, labelled_corners, split_folder
from training.recipes.recipe import Recipe


def split(root: Path, recipe: Recipe) -> list[Entry]:
    return split_folder(root, recipe, find_labels(root))


def corners(root: Path, recipe: Recipe, entries: list[Entry]) -> list[Outline]:
    return labelled_corners(root, recipe, entries, find_labels(root))
