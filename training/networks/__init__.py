"""The network and its parts: geometry, transformers, localisation and classifiers."""
