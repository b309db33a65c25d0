"""The service: predicts the class of a picture, and returns theta and the rectified image."""

import os

# Linux wheels of ONNX Runtime (1.29 and later) send telemetry unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
