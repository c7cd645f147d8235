"""Runs that score a file from outside: a checkpoint, or features."""

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
from harness.worker.scoring import score_ways


class CheckpointRun(ModelPipeline):
    """Scores the model of a checkpoint."""

    def _build(self) -> torch.nn.Module:
        """A trained model out of its file; what the file tells about its build goes before the options' defaults."""
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
    """Scores features that were extracted elsewhere; the name of the backbone need not be a registered one."""

    decoded = ()

    def _after_data(self) -> None:
        """Ranks the features after their rows were put in the order of the images."""
        self._enter("evaluate")
        splits, settings = self.splits, self.recipe.evaluation
        arranged = arrange(stored_file(self.job), splits.query, splits.gallery)
        if settings.flip:
            splits.notes["flip_test"] = "Stored features have no flip test, which needs the images."
        splits.notes.update(arranged.notes)
        for sentence in filter(None, map(splits.notes.get, ("row_order", "rows_left_out", "flip_test"))):
            self.progress.emit("warning", text=sentence)
        scored = score_ways(
            [(False, arranged.query, arranged.gallery)],
            splits.query,
            splits.gallery,
            dataset=self.dataset.name,
            settings=settings,
            protocol=self.dataset.card.protocol,
            emit=self.progress.emit,
        )
        self._keep(scored)


def stored_file(job: Job) -> Path:
    """The checkpoint or features of the job.

    Raises:
        WeightsError: another file than the one that was planned.
    """
    path = Path(job.input_file)
    if f"sha256:{weights.checksum(path)}" != job.spec.pretrained:
        raise WeightsError(f"{path} changed since the run was planned; start the command again.")
    return path
