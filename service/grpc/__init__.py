"""The Open Inference Protocol over gRPC: another way to the same engine, limits, keys, logs and metrics."""
