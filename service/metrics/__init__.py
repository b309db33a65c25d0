"""Counts events, and exposes them to Prometheus."""
