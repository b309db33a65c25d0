"""Rectified images in any size, sampled from the uploaded picture itself."""
