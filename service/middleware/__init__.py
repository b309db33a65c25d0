"""What happens to every request: log, keys, traces."""
