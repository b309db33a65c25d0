"""How a network is trained, and what a run keeps."""
