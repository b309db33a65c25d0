"""Speed, as ratios within one run."""

from training.terminal import escape_unprintable

escape_unprintable()  # before a benchmark of minutes prints its first row
