"""Base classes of pipelines: the stages of one run, in order. The purpose of the run selects the class."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from datasets import layouts
from harness import efficiency, registry
from harness.audits import audit
from harness.audits.checks import ranked_lists
from harness.audits.subject import Network, Subject
from harness.contracts import SPLITS, Item, Splits, set_camera_mode
from harness.data import checks
from harness.data.cache import open_images
from harness.data.images import UnreadableImages
from harness.data.loader import EvaluationData, camera_rows
from harness.data.reader import Reader
from harness.data.transforms import Images
from harness.errors import DataError, HarnessError
from harness.figures import run_figures
from harness.records import per_query
from harness.records.ranked_lists import file_name
from harness.registry import DatasetEntry, dataset_checks
from harness.spec import recipe
from harness.spec.job import Job
from harness.system import files
from harness.system.device import exact_float32, untested
from harness.system.redact import mask, readable
from harness.system.seeding import repeat_bit_for_bit
from harness.worker.audit import AuditedNetwork
from harness.worker.scoring import Scored, score_module

if TYPE_CHECKING:
    from harness.worker.events import Progress


class Pipeline:
    """Base class of all runs on datasets: reads and checks the data, and stores scores.

    Attributes:
        blocks: blocks of the record, each added as soon as it is known.
        tables: per-query rows, by file name.
        decoded: splits whose images are decoded, for every dataset.
    """

    decoded: tuple[str, ...] = ("query", "gallery")

    def __init__(self, job: Job, folder: Path, progress: Progress) -> None:
        torch.set_num_threads(job.threads)
        self.job, self.spec, self.folder, self.progress = job, job.spec, folder, progress
        self.blocks: dict[str, Any] = {"data": {}, "evaluations": [], "efficiency": {}}
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.device = torch.device(self.spec.device)
        self.recipe = recipe.from_values(self.spec.recipe, self.spec.values)
        self.cache = Path(job.paths.cache) if job.paths.cache else None
        self.others: dict[str, tuple[DatasetEntry, Splits]] = {}

    def run(self) -> None:
        """Executes all stages in order."""
        self._set_up_torch()
        if sentence := untested(self.device.type):
            self.progress.emit("warning", text=sentence)
        self._enter("data")
        self._look_up()
        self._check_all()
        self._after_data()

    def _set_up_torch(self) -> None:
        exact_float32()
        if self.recipe.training.deterministic:
            repeat_bit_for_bit()

    def _after_data(self) -> None:
        """Executes the stages after `data`."""
        raise NotImplementedError

    def _enter(self, stage: str) -> None:
        self.progress.enter(stage)

    def _look_up(self) -> None:
        """Looks up the datasets and, if the run has one, the backbone."""
        self.dataset = registry.dataset(self.spec.dataset, self._plugins())
        self.other_datasets = [registry.dataset(name, self._plugins()) for name, _ in self.spec.evaluate_on]

    def _plugins(self) -> Path | None:
        return Path(self.job.paths.plugins) if self.job.paths.plugins else None

    def _check_all(self) -> None:
        """Reads and checks every dataset before training, so that data errors show early."""
        self.splits = self._check(self.dataset)
        self.cameras: dict[int, int] | None = camera_rows(self.splits.train)
        self._check_model()
        for entry in self.other_datasets:
            with self._isolated(entry):
                self.others[entry.name] = entry, self._check(entry)

    def _check_model(self) -> None:
        """Checks that the data fit the backbone and the recipe."""

    def _check(self, entry: DatasetEntry) -> Splits:
        """Reads a dataset and checks its counts, labels and image files."""
        splits, problems = self._read(entry)
        block = data_block(splits, problems)
        if entry.name == self.spec.dataset:
            self.blocks["data"] = block
        else:
            self.blocks["data"].setdefault("evaluated", {})[entry.name] = block
        checks.labels(splits)
        block["image_sizes"] = checks.images(entry, splits, self._decoded_splits(entry))
        return splits

    def _read(self, entry: DatasetEntry) -> tuple[Splits, list[str]]:
        """Reads the splits; returns them with their differences from the card.

        Raises:
            DataError: counts differ from the card, and `--allow-count-mismatch` was not passed.
        """
        options = self.spec.dataset_options.get(entry.name, {})
        names = self._official_splits()
        splits = layouts.load(entry, Path(self.job.paths.data_root), splits=names, **options)
        problems = [p for p in dataset_checks.check_counts(entry, splits) if p.startswith(names)]
        if problems and not self.job.allow_count_mismatch:
            raise DataError(
                f"{entry.name} differs from its card: {' '.join(problems)} "
                "Repair the folder, or pass --allow-count-mismatch to continue; the record will note the difference."
            )
        return splits, problems

    def _official_splits(self) -> tuple[str, ...]:
        """The official splits to read."""
        return SPLITS

    def _decoded_splits(self, entry: DatasetEntry) -> tuple[str, ...]:
        """The splits whose images are decoded."""
        return self.decoded

    @contextlib.contextmanager
    def _isolated(self, entry: DatasetEntry) -> Iterator[None]:
        """Catches errors of an additional dataset; its scores are then missing, and the record gives the reason."""
        try:
            yield
        except Exception as problem:  # the scores on the run's own dataset do not depend on it
            text = str(problem) if isinstance(problem, HarnessError) else f"{type(problem).__name__}: {problem}"
            reason = readable(mask(text))
            self.others.pop(entry.name, None)
            self.blocks["data"].setdefault("evaluated", {}).setdefault(entry.name, {})["error"] = reason
            self.progress.emit("warning", text=f"{entry.name} is not scored: {reason}")

    def _keep(self, scored: list[Scored]) -> None:
        """Adds scores to the record, with per-query tables for the trained model only."""
        for one in scored:
            row = one.row
            own = row["dataset"] == self.spec.dataset
            name = per_query.file_name(
                row["dataset"],
                flip=row["flip"],
                rerank=row["rerank"],
                first=own and not row["flip"] and not row["rerank"],
            )
            self.blocks["evaluations"].append({**row, "per_query": name if row["trained"] else None})
            if row["trained"]:
                self.tables[name] = one.per_query

    def _audit(self, scored: list[Scored]) -> None:
        """Runs the audits of the job on every scored dataset, those of the run's own dataset first."""
        if not self.job.audits:
            return
        self._enter("audit")
        for entry, splits in [(self.dataset, self.splits), *self.others.values()]:
            plain = next((one for one in scored if _is_plain(one.row, entry.name)), None)
            if plain is None or plain.features is None:
                continue
            subject = Subject(
                dataset=entry.name,
                query=splits.query,
                gallery=splits.gallery,
                features=plain.features,
                metric=self.recipe.evaluation.metric,
                protocol=entry.card.protocol,
                knows_cameras=splits.knows_cameras,
                open_images=self._reader(splits).resized,
                keep=lambda name, text: files.replace(self.folder / name, text),
                earlier=self.blocks.setdefault("audits", []),
                train=splits.train,
                emit=self.progress.emit,
            )
            with self._audited(entry, splits) as subject.network:
                self.blocks["audits"] += audit.run(self.job.audits, subject)

    @contextlib.contextmanager
    def _audited(self, entry: DatasetEntry, splits: Splits) -> Iterator[Network | None]:
        """The network to audit on a dataset, or None if there are only its features."""
        yield None

    def _reader(self, splits: Splits) -> Reader:
        """Returns how test images are read."""
        return Reader(
            self._image_size(),
            self.recipe.augmentation.interpolation_test,
            folder=self.cache,
            value_range=splits.value_range,
            workers=self.job.workers,
            progress=self._decoding,
        )

    def _image_size(self) -> tuple[int, int]:
        height, width = self.recipe.augmentation.image_size
        return height, width

    def _decoding(self, done: int, total: int) -> None:
        """Reports the progress of decoding images."""
        if done % 500 == 0 or done == total:
            self.progress.emit("progress", stage="decode", done=done, total=total)


class ModelPipeline(Pipeline):
    """A run with a backbone: scores the module on all datasets, draws figures and measures efficiency."""

    module: torch.nn.Module

    def _after_data(self) -> None:
        self._decode_all()
        self._enter("build")
        self.module = self._build()
        scored = self._before_scoring()
        self._enter("evaluate")
        scored += self._score(self.dataset, self.splits)
        for entry, splits in list(self.others.values()):
            with self._isolated(entry), mean_camera(self.module):
                scored += self._score(entry, splits)
        self._keep(scored)
        self._audit(scored)
        self._after_scoring(scored)

    def _build(self) -> torch.nn.Module:
        raise NotImplementedError

    def _before_scoring(self) -> list[Scored]:
        """Prepares the module, for example by training; returns scores from before."""
        return []

    def _after_scoring(self, scored: list[Scored]) -> None:
        self._draw(scored)
        self._enter("measure")
        self._measure()

    def _look_up(self) -> None:
        super()._look_up()
        self.backbone = registry.backbone(self.spec.backbone, self._plugins())
        self.input = self.backbone.input

    def _decode_all(self) -> None:
        """Decodes all images into the cache, which also finds unreadable ones."""
        self._decode(self.dataset, self.splits)
        for entry, splits in list(self.others.values()):
            with self._isolated(entry):
                self._decode(entry, splits)

    def _decode(self, entry: DatasetEntry, splits: Splits) -> None:
        augmentation, bad = self.recipe.augmentation, []
        for split in self._decoded_splits(entry):
            how = augmentation.interpolation_train if split == "train" else augmentation.interpolation_test
            try:
                paths = [item.path for item in getattr(splits, split)]
                open_images(
                    paths,
                    self._image_size(),
                    how,
                    folder=self.cache,
                    value_range=splits.value_range,
                    workers=self.job.workers,
                    progress=self._decoding,
                )
            except UnreadableImages as error:
                bad += error.reasons
        if bad:
            raise UnreadableImages(bad)

    def _num_cameras(self) -> int:
        """Rows of a camera embedding: one per camera of the training images."""
        return len(camera_rows(self.splits.train)) or 1

    def _draw(self, scored: list[Scored]) -> None:
        """Draws the figures of the plain test on the run's own dataset, and stores its ranked lists."""
        if os.environ.get("HARNESS_PICTURES") == "0":
            return
        plain = next(one for one in scored if _is_plain(one.row, self.spec.dataset))
        stand_in = " (generated)" if self.splits.generated else ""
        title = f"{self.backbone.name} on {self.dataset.card.title}{stand_in}"
        metric, cameras = self.recipe.evaluation.metric, self.splits.knows_cameras
        if plain.features is not None:
            lists = ranked_lists.render(plain.features, self.splits.query, self.splits.gallery, metric, cameras=cameras)
            files.replace(self.folder / file_name(self.spec.dataset), lists)
        self.blocks["pictures"] = run_figures.draw(
            plain,
            self.splits.query,
            self.splits.gallery,
            self.folder,
            title,
            metric,
            cameras=cameras,
            value_range=self.splits.value_range,
        )

    def _score(self, entry: DatasetEntry, splits: Splits, *, trained: bool = True) -> list[Scored]:
        return score_module(
            self.module,
            splits.query,
            splits.gallery,
            partial(
                self._loader,
                cameras=self.cameras if entry.name == self.spec.dataset else None,
                value_range=splits.value_range,
            ),
            dataset=entry.name,
            device=self.device,
            settings=self._evaluation(),
            protocol=entry.card.protocol,
            trained=trained,
            emit=self.progress.emit,
        )

    def _evaluation(self) -> recipe.Evaluation:
        return self.recipe.evaluation

    @contextlib.contextmanager
    def _audited(self, entry: DatasetEntry, splits: Splits) -> Iterator[Network]:
        own = entry.name == self.spec.dataset
        cameras = self.cameras if own else None
        with contextlib.nullcontext() if own else mean_camera(self.module):
            yield AuditedNetwork(
                self.module,
                self.device,
                self._reader(splits),
                lambda items, images: self._loader(items, cameras, splits.value_range, images),
                self.progress.emit,
            )

    def _loader(
        self,
        items: Sequence[Item],
        cameras: dict[int, int] | None,
        value_range: tuple[float, float] | None,
        images: Images | None = None,
    ) -> EvaluationData:
        return EvaluationData(
            items,
            image_size=self._image_size(),
            interpolation=self.recipe.augmentation.interpolation_test,
            mean=self.input.mean,
            std=self.input.std,
            batch_size=self.recipe.evaluation.batch_size,
            cameras=cameras,
            value_range=value_range,
            cache=self.cache,
            workers=self.job.workers,
            progress=self._decoding,
            pin_memory=self.device.type == "cuda",
            images=images,
        )

    def _measure(self) -> None:
        self.blocks["efficiency"] |= efficiency.measure(
            self.module,
            image_size=self._image_size(),
            num_cameras=self._num_cameras(),
            batch_size=min(64, self.recipe.evaluation.batch_size),
            device=self.device,
        )


def data_block(splits: Splits, problems: list[str]) -> dict[str, Any]:
    """The `data` block of a record: layout, counts, notes, and differences from the card."""
    return {
        "layout": splits.layout,
        "generated": splits.generated,
        "notes": splits.notes,
        "count_mismatch": problems,
        "splits": {
            name: {
                "images": len(items),
                "identities": len({i.pid for i in items}),
                "cameras": len({i.camid for i in items}),
            }
            for name, items in ((name, getattr(splits, name)) for name in SPLITS)
        },
    }


def _is_plain(row: Mapping[str, Any], dataset: str) -> bool:
    """Whether an evaluation is the plain test of the trained model on a dataset."""
    return row["trained"] and row["dataset"] == dataset and not row["flip"] and not row["rerank"]


@contextlib.contextmanager
def mean_camera(module: torch.nn.Module) -> Iterator[None]:
    """Lets a camera embedding return the mean of its trained cameras, for datasets with other cameras."""
    parts = set_camera_mode(module, "mean")
    try:
        yield
    finally:
        for part in parts:
            set_camera_mode(part, "on", since="mean")
