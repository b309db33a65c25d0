"""The evaluation of trained networks."""
