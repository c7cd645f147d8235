"""The straight line of one run, after its process is set up: data, build, train, evaluate, measure."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from datasets import fingerprint_cache, layouts
from harness import efficiency, registry, weights
from harness.cards import InputCard
from harness.contracts import SPLITS, Item, Splits, set_camera_mode
from harness.data import EvaluationData, PKSampler, TrainingData, camera_rows, checks, holdout_split
from harness.data.cache import open_images
from harness.data.feature_rows import arrange
from harness.data.images import UnreadableImages
from harness.errors import DataError, HarnessError, WeightsError
from harness.figures import run_figures
from harness.records import per_query
from harness.registry import DatasetEntry, dataset_checks
from harness.spec import recipe
from harness.spec.job import Job
from harness.spec.run_spec import training_key
from harness.system.device import exact_float32, place, precision_name
from harness.system.redact import mask, readable
from harness.system.seeding import repeat_bit_for_bit, seed_torch
from harness.training.trained import check_cameras, from_checkpoint
from harness.training.trainer import Trainer
from harness.worker.scoring import Scored, score_module, score_ways

if TYPE_CHECKING:
    from harness.worker.events import Progress


class Pipeline:
    """One run. What it finds out is in `blocks` and `tables` as soon as it is known.

    Attributes:
        blocks: the `data`, `evaluations` and `efficiency` blocks of the record.
        tables: per-query rows, by file name.
    """

    def __init__(self, job: Job, folder: Path, progress: Progress) -> None:
        torch.set_num_threads(job.threads)
        self.job, self.spec, self.folder, self.progress = job, job.spec, folder, progress
        self.blocks: dict[str, Any] = {"data": {}, "evaluations": [], "efficiency": {}}
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.device = torch.device(self.spec.device)
        self.recipe = recipe.from_values(self.spec.recipe, self.spec.values)
        self.cache = Path(job.paths.cache) if job.paths.cache else None
        self.searching = self.spec.purpose == "search"
        self.others: dict[str, tuple[DatasetEntry, Splits]] = {}

    def run(self) -> None:
        """All stages, in order."""
        exact_float32()
        if self.recipe.training.deterministic:
            repeat_bit_for_bit()
        self._enter("data")
        self._look_up()
        self._check_all()
        if self.spec.purpose == "features":
            self._enter("evaluate")
            self._keep(self._score_stored())
            return
        self._decode_all()
        self._enter("build")
        self.module = self._build()
        scored: list[Scored] = []
        if self.trains:
            if self.recipe.evaluation.untrained and not self.searching:
                self._enter("evaluate")
                scored += self._score(self.dataset, self.splits, trained=False)
            self._enter("train")
            self._train()
        self._enter("evaluate")
        scored += self._score(self.dataset, self.splits)
        for entry, splits in list(self.others.values()):
            with self._on_its_own(entry), mean_camera(self.module):
                scored += self._score(entry, splits)
        self._keep(scored)
        if self.searching:  # a trial is known by its held-out score alone
            return
        self._draw(scored)
        self._enter("measure")
        self._measure()

    def _enter(self, stage: str) -> None:
        self.progress.enter(stage)

    def _look_up(self) -> None:
        plugins = Path(self.job.paths.plugins) if self.job.paths.plugins else None
        self.dataset = registry.dataset(self.spec.dataset, plugins)
        self.other_datasets = [registry.dataset(name, plugins) for name, _ in self.spec.evaluate_on]
        self.trains = False
        if self.spec.purpose == "features":  # nothing is built, and the name need not be a backbone's
            return
        self.backbone = registry.backbone(self.spec.backbone, plugins)
        self.input = input_card(self.backbone)
        trainable = self.backbone.card.trainable and self.recipe.training.epochs > 0
        self.trains = trainable and self.spec.purpose in ("test", "search")

    def _check_all(self) -> None:
        """Reads and checks every dataset, so that nothing is trained that cannot be scored."""
        self.splits = self._check(self.dataset)
        self.cameras: dict[int, int] | None = camera_rows(self.splits.train)
        if self.trains:
            PKSampler([item.pid for item in self.splits.train], self.recipe.sampler, seed=self.spec.seed)
        if self.spec.purpose in ("test", "search") and self.backbone.embeds_cameras(self.spec.options):
            checks.cameras(self.backbone, self.cameras, [*self.splits.query, *self.splits.gallery])
        for entry in self.other_datasets:
            with self._on_its_own(entry):
                self.others[entry.name] = entry, self._check(entry)

    def _check(self, entry: DatasetEntry) -> Splits:
        """Reads a dataset and checks its counts, labels and image files."""
        splits, problems = self._read(entry)
        block = data_block(splits, problems)
        if entry.name == self.spec.dataset:
            self.blocks["data"] = block
        else:
            self.blocks["data"].setdefault("evaluated", {})[entry.name] = block
        checks.labels(splits)
        block["image_sizes"] = checks.images(entry, splits, self._used(entry))
        return splits

    def _read(self, entry: DatasetEntry) -> tuple[Splits, list[str]]:
        """The splits, in a search those cut out of the training images; and how they differ from the card."""
        options = self.spec.dataset_options.get(entry.name, {})
        wanted = ("train",) if self.searching else SPLITS
        splits = layouts.load(entry, Path(self.job.paths.data_root), splits=wanted, **options)
        problems = [p for p in dataset_checks.check_counts(entry, splits) if p.startswith(wanted)]
        if problems and not self.job.allow_count_mismatch:
            raise DataError(
                f"{entry.name} is not what its card says: {' '.join(problems)} "
                "Repair the folder, or pass --allow-count-mismatch to go on; the record will say so."
            )
        if not self.searching:
            return splits, problems
        held_out = holdout_split(
            splits.train,
            seed=self.spec.holdout["seed"],
            fraction=self.spec.holdout["share"],
            cameras=splits.knows_cameras,
        )
        return Splits(*held_out, splits.root, splits.layout, splits.generated, splits.notes), []

    def _used(self, entry: DatasetEntry) -> tuple[str, ...]:
        """The splits whose images are decoded."""
        if self.spec.purpose == "features":
            return ()
        return SPLITS if self.trains and entry.name == self.spec.dataset else ("query", "gallery")

    def _decode_all(self) -> None:
        """Builds the caches of decoded images, which opens every image in full."""
        self._decode(self.dataset, self.splits)
        for entry, splits in list(self.others.values()):
            with self._on_its_own(entry):
                self._decode(entry, splits)

    def _decode(self, entry: DatasetEntry, splits: Splits) -> None:
        augmentation, bad = self.recipe.augmentation, []
        for split in self._used(entry):
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

    @contextlib.contextmanager
    def _on_its_own(self, entry: DatasetEntry) -> Iterator[None]:
        """A further dataset that fails costs its own scores alone; the record and a warning say why."""
        try:
            yield
        except Exception as problem:  # whatever it is, the run's own score does not depend on it
            text = str(problem) if isinstance(problem, HarnessError) else f"{type(problem).__name__}: {problem}"
            reason = readable(mask(text))
            self.others.pop(entry.name, None)
            self.blocks["data"].setdefault("evaluated", {}).setdefault(entry.name, {})["error"] = reason
            self.progress.emit("warning", text=f"{entry.name} is not scored: {reason}")

    def _build(self) -> torch.nn.Module:
        if self.spec.purpose == "checkpoint":
            return self._build_from_checkpoint()
        seed_torch(self.spec.seed, "build")
        module = self.backbone.build(
            num_classes=len({item.pid for item in self.splits.train}),
            num_cameras=self._num_cameras(),
            image_size=self._image_size(),
            pretrained=self._starting_weights(),
            **self.spec.options,
        )
        return place(module, self.device, self.input)

    def _build_from_checkpoint(self) -> torch.nn.Module:
        """A trained model out of its file; what the file tells about its build goes before the options' defaults."""
        module, rows = from_checkpoint(
            self.backbone,
            weights.load_state(self._stored_file(), self.job.trust_pickle),
            self.spec.options,
            image_size=self._image_size(),
            num_classes=len({item.pid for item in self.splits.train}),
            num_cameras=self._num_cameras(),
        )
        self.cameras = check_cameras(self.backbone, module, rows, self.splits)
        return place(module, self.device, self.input)

    def _num_cameras(self) -> int:
        """Rows of a camera embedding: one for each camera of the training images."""
        return len(camera_rows(self.splits.train)) or 1

    def _score_stored(self) -> list[Scored]:
        """Scores features somebody else extracted, after their rows were put in the order of the images."""
        splits, settings = self.splits, self.recipe.evaluation
        arranged = arrange(self._stored_file(), splits.query, splits.gallery)
        if settings.flip:
            splits.notes["flip_test"] = "Stored features have no flip test, which needs the images."
        splits.notes.update(arranged.notes)
        for sentence in filter(None, map(splits.notes.get, ("row_order", "rows_left_out", "flip_test"))):
            self.progress.emit("warning", text=sentence)
        return score_ways(
            [(False, arranged.query, arranged.gallery)],
            splits.query,
            splits.gallery,
            dataset=self.dataset.name,
            settings=settings,
            protocol=self.dataset.card.protocol,
            emit=self.progress.emit,
        )

    def _stored_file(self) -> Path:
        """The checkpoint or features of the job; another file than the one that was planned is refused."""
        path = Path(self.job.input_file)
        if f"sha256:{weights.checksum(path)}" != self.spec.pretrained:
            raise WeightsError(f"{path} changed since the run was planned; start the command again.")
        return path

    def _starting_weights(self) -> Path | None:
        """The pretrained file the plan saw; another file under its name is refused."""
        if self.spec.pretrained == "none":
            return None
        card, root = self.backbone.card, self.job.paths.weights_root
        if (found := weights.identity(card, root, self.spec.options)) != self.spec.pretrained:
            raise WeightsError(
                f"The starting weights of {card.name} below {root} changed since the plan: expected "
                f"{self.spec.pretrained[:20]}..., found {found[:20]}...; plan again."
            )
        return weights.locate(card, root, self.spec.options)

    def _train(self) -> None:
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
            take_over=not (self.searching or self.job.force),  # a trial needs the score of each of its own epochs
            on_epoch=self._held_out if self.searching else None,
        )
        summary = trainer.fit()
        self.blocks["efficiency"] = {
            "train_images_per_second": summary.images_per_second,
            "peak_memory_bytes": efficiency.peak_memory_bytes(self.device) if summary.images_per_second else None,
            "train_batch_size": data.batch_size,
            "train_precision": precision_name(trainer.dtype),
            "epochs": summary.epochs,
            "resumed_at_epoch": summary.resumed_at,
            "taken_over": summary.taken_over,
            "skipped_steps": summary.skipped_steps,
        }

    def _training_key(self) -> str:
        """Names the training, so that runs which differ only in what they score can share it."""
        alone = Splits(self.splits.train, (), (), self.splits.root)
        return training_key(self.spec, fingerprint_cache.digest(alone))

    def _keep(self, scored: list[Scored]) -> None:
        """Puts scores into the record; the untrained model's per-query values are not worth a file."""
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

    def _draw(self, scored: list[Scored]) -> None:
        """Pictures of the plain test on the run's own dataset."""
        plain = next(s for s in scored if s.row["trained"] and s.row["dataset"] == self.spec.dataset)
        stand_in = " (generated)" if self.splits.generated else ""
        title = f"{self.backbone.name} on {self.dataset.card.title}{stand_in}"
        metric = self.recipe.evaluation.metric
        self.blocks["pictures"] = run_figures.draw(
            plain,
            self.splits.query,
            self.splits.gallery,
            self.folder,
            title,
            metric,
            cameras=self.splits.knows_cameras,
            value_range=self.splits.value_range,
        )

    def _emit(self, event: str, **values: Any) -> None:
        """Passes an event on; an epoch's metrics are also kept in metrics.jsonl."""
        if event == "epoch":
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": values["epoch"], **values["metrics"]}) + "\n")
        self.progress.emit(event, **values)

    def _held_out(self, epoch: int, module: torch.nn.Module) -> dict[str, float]:
        """Held-out mAP after an epoch of a search; the test split is not touched."""
        row = self._score(self.dataset, self.splits)[0].row
        return {"mAP": row["mAP"], "rank-1": row["rank-1"]}

    def _score(self, entry: DatasetEntry, splits: Splits, *, trained: bool = True) -> list[Scored]:
        settings = self.recipe.evaluation
        if self.searching:
            settings = replace(settings, flip=False, rerank=False)
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
            settings=settings,
            protocol=entry.card.protocol,
            trained=trained,
            emit=self.progress.emit,
        )

    def _loader(
        self, items: Sequence[Item], cameras: dict[int, int] | None, value_range: tuple[float, float] | None
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
        )

    def _decoding(self, done: int, total: int) -> None:
        """Says how far the cache of decoded images is."""
        if done % 500 == 0 or done == total:
            self.progress.emit("progress", stage="decode", done=done, total=total)

    def _measure(self) -> None:
        self.blocks["efficiency"] |= efficiency.measure(
            self.module,
            image_size=self._image_size(),
            num_cameras=self._num_cameras(),
            batch_size=min(64, self.recipe.evaluation.batch_size),
            device=self.device,
        )

    def _image_size(self) -> tuple[int, int]:
        height, width = self.recipe.augmentation.image_size
        return height, width


def input_card(backbone: registry.BackboneEntry) -> InputCard:
    """The input normalisation: the card's, or an adapter's for its model."""
    if backbone.card.adapter:
        return backbone.model().input_card(backbone.variant)
    return backbone.card.input


def data_block(splits: Splits, problems: list[str]) -> dict[str, Any]:
    """The `data` block of a record: what was read, and how it differs from the card."""
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


@contextlib.contextmanager
def mean_camera(module: torch.nn.Module) -> Iterator[None]:
    """On another dataset the cameras are unknown: a camera embedding gives the mean of the trained ones."""
    parts = set_camera_mode(module, "mean")
    try:
        yield
    finally:
        for part in parts:
            set_camera_mode(part, "on", since="mean")
