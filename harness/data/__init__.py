"""The data pipeline, identical for every backbone: decoding, image cache, sampling, augmentation, batches."""

from harness.data.holdout import holdout_split
from harness.data.loader import Batch, EvaluationData, TrainingData, camera_rows
from harness.data.sampler import PKSampler

__all__ = ["Batch", "EvaluationData", "PKSampler", "TrainingData", "camera_rows", "holdout_split"]
