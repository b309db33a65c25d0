"""Data sets, distortions, augmentation and batches."""
