"""From a training run to an artifact that the service can load: ONNX or TorchScript, proven equal to the model."""

import os

# ONNX Runtime's wheels for Linux (1.29 and later) report to Microsoft unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
