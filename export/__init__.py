"""From a training run to an artifact that the service can load: ONNX or TorchScript, proven equal to the model."""
