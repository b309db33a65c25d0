"""The middleware of every request: ids, logs, keys, rates and traces."""
