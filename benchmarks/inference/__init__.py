"""Answers without a network: models, runtimes, devices and options."""
