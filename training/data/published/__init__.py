"""Published data sets that are more than torchvision reads: GTSRB with its tracks, and CUB-200-2011."""
