"""What answers of models, runtimes and devices cost, mostly without a server."""
