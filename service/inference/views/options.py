"""What views of a picture are requested for."""

from typing import NamedTuple


class ViewOptions(NamedTuple):
    """How many views of a picture are inferred besides the picture. All uses share the same ones."""

    reliability: int = 0
    """Views from which the reliability is told; 0 tells none."""
    averaged: int = 0
    """Views over which the probabilities are averaged, with those of the picture; 0 averages none."""

    @property
    def needed(self) -> int:
        """The number of views for all uses."""
        return max(self)


NO_VIEWS = ViewOptions()
