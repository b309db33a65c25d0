"""Export a training run to a verified artifact that the service can load."""

import os

# ONNX Runtime's wheels for Linux (1.29 and later) send telemetry unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
