"""The values of a recipe's fields that a search tries: ``LOW..HIGH``, or ``a|b|c``."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import NamedTuple

from optuna import Trial

from training.errors import RecipeError
from training.recipes.recipe import Recipe, change_recipe, parse_changes

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})")
WHOLE = re.compile(r"[-+]?\d+")
DECADE = 10
"""Ratio of the ends of a range of floats above which the logarithm is drawn uniformly."""
PATTERNS = {"scene"}
"""Fields whose values are regular expressions, in which ``|`` has a meaning of its own."""
COMBINATIONS = 256
"""Number of combinations of values that are checked before the first trial."""


class Floats(NamedTuple):
    """All numbers from ``low`` to ``high``."""

    low: float
    high: float

    def draw(self, trial: Trial, name: str) -> object:
        """Draw a value; its logarithm is uniform if the range spans more than a decade."""
        return trial.suggest_float(name, self.low, self.high, log=0 < self.low * DECADE < self.high)

    def probes(self) -> Sequence[object]:
        """Return values with which the field is checked."""
        return self.low, self.high


class Integers(NamedTuple):
    """All integers from ``low`` to ``high``."""

    low: int
    high: int

    def draw(self, trial: Trial, name: str) -> object:
        """Draw a value."""
        return trial.suggest_int(name, self.low, self.high)

    def probes(self) -> Sequence[object]:
        """Return values with which the field is checked."""
        return self.low, self.high


class Choices(NamedTuple):
    """A few values, as they are written on the command line."""

    texts: tuple[str, ...]

    def draw(self, trial: Trial, name: str) -> object:
        """Draw a value."""
        return value(trial.suggest_categorical(name, self.texts))

    def probes(self) -> Sequence[object]:
        """Return values with which the field is checked."""
        return [value(text) for text in self.texts]


Space = Mapping[str, Floats | Integers | Choices]
"""The fields that are searched."""


def value(text: object) -> object:
    """Read a value of a field as ``--set`` does: JSON, or else text."""
    return parse_changes([f"value={text}"])["value"]


def parse_space(pairs: Sequence[str]) -> tuple[Space, dict[str, object]]:
    """Parse ``KEY=LOW..HIGH`` and ``KEY=a|b|c``; return the fields that are searched, and those that are only set.

    Raises:
        RecipeError: a pair is wrong, or none of them is searched.
    """
    space: dict[str, Floats | Integers | Choices] = {}
    fixed: dict[str, object] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name in space or name in fixed:
            raise RecipeError(f"--set {name} is given twice; leave one of them out")
        if found := RANGE.fullmatch(text):
            space[name] = between(pair, *found.groups())
        elif "|" in text and name not in PATTERNS:
            texts = tuple(each.strip() for each in text.split("|"))
            if len(set(texts)) < len(texts) or not all(texts):
                raise RecipeError(f"--set {pair} has an empty choice, or one twice; write it as in KEY=a|b|c")
            space[name] = Choices(texts)
        else:
            fixed |= parse_changes([pair])
    if not space:
        raise RecipeError("nothing is searched; give a range as in --set learning_rate=1e-4..1e-2, or choices: a|b|c")
    return space, fixed


def between(pair: str, low: str, high: str) -> Floats | Integers:
    """Return the range from ``low`` to ``high``.

    Raises:
        RecipeError: it is empty or endless.
    """
    is_whole = WHOLE.fullmatch(low) and WHOLE.fullmatch(high)
    found = Integers(int(low), int(high)) if is_whole else Floats(float(low), float(high))
    if not (math.isfinite(found.low) and math.isfinite(found.high)) or found.low >= found.high:
        raise RecipeError(f"--set {pair} is no range; write it as in KEY=LOW..HIGH, with LOW below HIGH")
    return found


def check_space(recipe: Recipe, space: Space) -> None:
    """Check that the ends of all ranges and all choices are possible, at least with some values of the others.

    Raises:
        RecipeError: a field does not exist, or one of its values is never possible.
    """
    problems: dict[tuple[str, str], RecipeError] = {}
    possible: set[tuple[str, str]] = set()
    probes = [[(name, probe) for probe in values.probes()] for name, values in space.items()]
    for combination in islice(product(*probes), COMBINATIONS):
        keys = [(name, json.dumps(probe)) for name, probe in combination]
        try:
            change_recipe(recipe, dict(combination))
        except RecipeError as error:
            problems |= dict.fromkeys(keys, error)
        else:
            possible.update(keys)
    for key, problem in problems.items():
        if key not in possible:
            raise problem


def draw(trial: Trial, space: Space) -> dict[str, object]:
    """Draw a value of each field."""
    return {name: values.draw(trial, name) for name, values in space.items()}
