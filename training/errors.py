"""Everything that can go wrong in training and has a cure its user can apply.

TrainingError                 base class: the command line prints it as one line and exits with 1
├── RecipeError               an unknown recipe or field, a wrong value, a contradiction
├── DataError                 a data set is missing, unreadable or too small
├── RunError                  a run folder is missing, incomplete or in the way
└── CollapseError             training went wrong for good: the loss is no number, or the transformer left the picture
"""


class TrainingError(Exception):
    """Base class; the message says what is wrong and what to do about it."""


class RecipeError(TrainingError):
    """The recipe asked for does not exist, or its fields contradict each other."""


class DataError(TrainingError):
    """The data set cannot be read from where it was looked for."""


class RunError(TrainingError):
    """The run folder cannot be used for what was asked."""


class CollapseError(TrainingError):
    """Training went wrong for good; the best checkpoint so far is kept."""
