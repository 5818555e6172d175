"""What a network learns from: songs, caches, mixing, augmentation, batches."""
