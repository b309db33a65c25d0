"""Tries a new version of a model beside its default version: in the shadow, as a canary, and back."""
