"""The training loop beside PyTorch's tutorial: its speed, time to an accuracy, precision and memory."""
