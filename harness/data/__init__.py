"""The data pipeline, identical for every backbone: decoding, image cache, sampling, augmentation, batches."""
