"""Put a straightener of this project in front of any ONNX classifier, in one model file."""
