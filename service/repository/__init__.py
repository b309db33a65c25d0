"""Models that come and go."""
