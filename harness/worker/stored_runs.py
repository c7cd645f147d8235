"""Runs that score an existing file: a checkpoint, or features."""

from __future__ import annotations

from pathlib import Path

import torch

from harness import weights
from harness.data.feature_rows import arrange
from harness.errors import WeightsError
from harness.spec.job import Job
from harness.system.device import place
from harness.training.trained import check_cameras, from_checkpoint
from harness.worker.pipeline import ModelPipeline, Pipeline
from harness.worker.scoring import score_variants


class CheckpointRun(ModelPipeline):
    """Scores the model of a checkpoint."""

    def _build(self) -> torch.nn.Module:
        """Builds the trained model; build options found in the file override the defaults."""
        module, rows = from_checkpoint(
            self.backbone,
            weights.load_state(stored_file(self.job), self.job.trust_pickle),
            self.spec.options,
            image_size=self._image_size(),
            num_classes=len({item.pid for item in self.splits.train}),
            num_cameras=self._num_cameras(),
        )
        self.cameras = check_cameras(self.backbone, module, rows, self.splits)
        return place(module, self.device, self.input)


class FeatureRun(Pipeline):
    """Scores features that were extracted elsewhere; the backbone name need not be registered."""

    decoded = ()

    def _after_data(self) -> None:
        """Brings the features into the order of the images and ranks them."""
        self._enter("evaluate")
        splits, settings = self.splits, self.recipe.evaluation
        arranged = arrange(stored_file(self.job), splits.query, splits.gallery)
        if settings.flip:
            splits.notes["flip_test"] = "Stored features have no flip test, because it needs the images."
        splits.notes.update(arranged.notes)
        for sentence in filter(None, map(splits.notes.get, ("row_order", "rows_left_out", "flip_test"))):
            self.progress.emit("warning", text=sentence)
        scored = score_variants(
            [(False, arranged.query, arranged.gallery)],
            splits.query,
            splits.gallery,
            dataset=self.dataset.name,
            settings=settings,
            protocol=self.dataset.card.protocol,
            emit=self.progress.emit,
        )
        self._keep(scored)
        self._audit(scored)


def stored_file(job: Job) -> Path:
    """Path of the job's checkpoint or features.

    Raises:
        WeightsError: the file changed since the run was planned.
    """
    path = Path(job.input_file)
    if f"sha256:{weights.checksum(path)}" != job.spec.pretrained:
        raise WeightsError(f"{path} has changed since the run was planned. Start the command again.")
    return path
