"""The service: pictures in, class predictions, theta and the rectified image out."""

__version__ = "0.1.0"
