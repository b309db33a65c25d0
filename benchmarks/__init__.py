"""What the service and its networks cost, as ratios within one run, and how exact their answers are."""

from training.terminal import escape_unprintable

escape_unprintable()  # before a benchmark of minutes prints its first row
