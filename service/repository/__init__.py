"""The models folder while the service runs: which models are loaded, replaced and unloaded, and when."""
