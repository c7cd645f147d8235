"""Runs that train: on the whole training set, or on part of it as a search trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

from datasets import fingerprint_cache
from harness import efficiency, weights
from harness.contracts import SPLITS, Splits
from harness.data import checks
from harness.data.holdout import holdout_split
from harness.data.loader import TrainingData, camera_rows
from harness.data.sampler import PKSampler
from harness.errors import WeightsError
from harness.records import epochs
from harness.registry import DatasetEntry
from harness.spec import recipe
from harness.spec.run_spec import training_key
from harness.system.device import place, precision_name
from harness.system.seeding import seed_torch
from harness.training.group import Group
from harness.training.trainer import OnEpoch, Summary, Trainer
from harness.worker import peers
from harness.worker.pipeline import ModelPipeline
from harness.worker.scoring import Scored


class TrainingRun(ModelPipeline):
    """Trains on the whole training set and scores the test split; with zero epochs, scores the starting weights."""

    def _look_up(self) -> None:
        super()._look_up()
        self.trains = self.backbone.card.trainable and self.recipe.training.epochs > 0

    def _check_model(self) -> None:
        if self.trains:
            PKSampler([item.pid for item in self.splits.train], self.recipe.sampler, seed=self.spec.seed)
        if self.backbone.embeds_cameras(self.spec.options):
            checks.cameras(self.backbone, camera_rows(self.splits.train), [*self.splits.query, *self.splits.gallery])

    def _decoded_splits(self, entry: DatasetEntry) -> tuple[str, ...]:
        return SPLITS if self.trains and entry.name == self.spec.dataset else self.decoded

    def _build(self) -> torch.nn.Module:
        seed_torch(self.spec.seed, "build")
        if self.trains:
            card = self.backbone.card
            self.blocks["start"] = weights.kind_of_start(card, self.spec.options, self.spec.pretrained)
        module = self.backbone.build(
            num_classes=len({item.pid for item in self.splits.train}),
            num_cameras=self._num_cameras(),
            image_size=self._image_size(),
            pretrained=self._starting_weights(),
            **self.spec.options,
        )
        return place(module, self.device, self.input)

    def _starting_weights(self) -> Path | None:
        """Path of the pretrained file, or None.

        Raises:
            WeightsError: the file changed since the run was planned.
        """
        if self.spec.pretrained == "none":
            return None
        card, root = self.backbone.card, self.job.paths.weights_root
        if (found := weights.identity(card, root, self.spec.options)) != self.spec.pretrained:
            raise WeightsError(
                f"The starting weights of {card.name} in {root} have changed since the run was planned: expected "
                f"{self.spec.pretrained[:20]}..., found {found[:20]}... Start the command again."
            )
        return weights.locate(card, root, self.spec.options)

    def _before_scoring(self) -> list[Scored]:
        if not self.trains:
            return []
        scored = self._score_untrained()
        self._enter("train")
        self._train()
        return scored

    def _score_untrained(self) -> list[Scored]:
        if not self.recipe.evaluation.untrained:
            return []
        self._enter("evaluate")
        return self._score(self.dataset, self.splits, trained=False)

    def follow(self, rank: int, store: Path) -> None:
        """Trains as one of several processes; the first one has checked the data, and saves and scores the module."""
        self._set_up_torch()
        self._look_up()
        self.splits, _ = self._read(self.dataset)
        self.module = self._build()
        group = peers.join(store, rank, self.job.processes, self.device)
        self._trained_in(group)
        group.close()

    def _train(self) -> None:
        self.progress.seconds["train"] = round(epochs.seconds(self.folder), 3)  # of earlier attempts
        with peers.group_of(self.job, self.folder, self.device, self.progress) as group:
            summary, trainer = self._trained_in(group)
        self.blocks["efficiency"] = {
            "train_images_per_second": summary.images_per_second,
            "train_processes": group.size,
            "peak_memory_bytes": efficiency.peak_memory_bytes(self.device) if summary.images_per_second else None,
            "train_batch_size": trainer.data.batch_size,
            "train_precision": precision_name(trainer.dtype),
            "epochs": summary.epochs,
            "resumed_at_epoch": summary.resumed_at,
            "taken_over": summary.taken_over,
            "skipped_steps": summary.skipped_steps,
        }

    def _trained_in(self, group: Group) -> tuple[Summary, Trainer]:
        """Trains the module, together with the other processes of the group."""
        data = TrainingData(
            self.splits.train,
            self.recipe,
            mean=self.input.mean,
            std=self.input.std,
            seed=self.spec.seed,
            value_range=self.splits.value_range,
            cache=self.cache,
            workers=self.job.workers,
            progress=self._decoding,
            pin_memory=self.device.type == "cuda",
            part=group.part,
        )
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer = Trainer(
            self.module,
            data,
            self.recipe,
            device=self.device,
            seed=self.spec.seed,
            run_id=self.spec.run_id,
            folder=self.folder,
            emit=self._emit,
            training=self._training_key(),
            take_over=self._may_take_over(),
            on_epoch=self._on_epoch(),
            group=group,
        )
        return trainer.fit(), trainer

    def _may_take_over(self) -> bool:
        """Whether training may start from the checkpoint of another run with the same training settings."""
        return not self.job.force

    def _on_epoch(self) -> OnEpoch | None:
        """Returns the callback after each epoch, or None."""
        return None

    def _training_key(self) -> str:
        """Identifies the training, so that runs that differ only in evaluation can share it."""
        alone = Splits(self.splits.train, (), (), self.splits.root)
        return training_key(self.spec, fingerprint_cache.digest(alone))

    def _emit(self, event: str, **values: Any) -> None:
        """Emits an event; also appends the metrics of an epoch to metrics.jsonl."""
        if event == "epoch":
            epochs.append(self.folder, values["epoch"], values["metrics"])
        self.progress.emit(event, **values)


class SearchTrial(TrainingRun):
    """Trains on part of the training identities and scores the held-out rest after every epoch.

    It does not read the test split.
    """

    def _official_splits(self) -> tuple[str, ...]:
        return ("train",)

    def _read(self, entry: DatasetEntry) -> tuple[Splits, list[str]]:
        """Splits the training images into training, query and gallery images."""
        splits, _ = super()._read(entry)
        held_out = holdout_split(
            splits.train,
            seed=self.spec.holdout["seed"],
            fraction=self.spec.holdout["share"],
            cameras=splits.knows_cameras,
        )
        return Splits(*held_out, splits.root, splits.layout, splits.generated, splits.notes), []

    def _score_untrained(self) -> list[Scored]:
        return []

    def _may_take_over(self) -> bool:
        return False  # a trial needs its own score after every epoch

    def _on_epoch(self) -> OnEpoch:
        return self._score_held_out

    def _score_held_out(self, epoch: int, module: torch.nn.Module) -> dict[str, float]:
        """Scores the held-out identities after an epoch; returns mAP and rank-1."""
        row = self._score(self.dataset, self.splits)[0].row
        return {"mAP": row["mAP"], "rank-1": row["rank-1"]}

    def _evaluation(self) -> recipe.Evaluation:
        return replace(self.recipe.evaluation, flip=False, rerank=False)

    def _audit(self, scored: list[Scored]) -> None:
        """Audits nothing; the final runs of a search are audited."""

    def _after_scoring(self, scored: list[Scored]) -> None:
        """Draws and measures nothing."""
