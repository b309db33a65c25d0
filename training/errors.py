"""Errors that a user can resolve. The command line prints them as one line and exits with 1.

TrainingError                 base class
├── RecipeError               an unknown recipe or field, a wrong value, or inconsistent fields
├── DataError                 a data set is missing, unreadable or too small
├── RunError                  a run folder is missing, incomplete or already in use
└── CollapseError             training failed: the loss is not finite, or the transformer collapsed
"""


class TrainingError(Exception):
    """Base class. The message says what is wrong and how to resolve it."""


class RecipeError(TrainingError):
    """The recipe does not exist, or its fields are wrong or inconsistent."""


class DataError(TrainingError):
    """The data set is missing, unreadable or too small."""


class RunError(TrainingError):
    """The run folder cannot be used for this command."""


class CollapseError(TrainingError):
    """Training failed and cannot recover. The best checkpoint so far is kept."""
