"""Reading of pictures: from the bytes of a file to upright pixels, in training and in the service alike."""
