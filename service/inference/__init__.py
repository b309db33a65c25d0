"""The engine: batches, backends and models, without HTTP."""
