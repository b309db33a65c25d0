"""The Open Inference Protocol, version 2, over HTTP, as clients of Triton and KServe use it."""
