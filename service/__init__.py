"""The service: pictures in, class predictions, theta and the rectified image out."""

import os

# ONNX Runtime's wheels for Linux (1.29 and later) report to Microsoft unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
