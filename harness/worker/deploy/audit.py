"""Audits the network of a finished run, from its checkpoint, and adds what they find to the record of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from datasets import layouts
from harness import registry
from harness.audits import audit
from harness.audits.subject import Subject
from harness.contracts import Item, Splits
from harness.data.reader import Reader
from harness.data.transforms import Images
from harness.records import store
from harness.registry import DatasetEntry
from harness.system import files, processes
from harness.worker.audit import AuditedNetwork
from harness.worker.deploy.embedder import Embedder, load
from harness.worker.deploy.feature_file import choose_cameras
from harness.worker.pipeline import mean_camera

Show = Callable[..., None]
"""Receives events as a run sends them: a kind and values."""


@dataclass(frozen=True)
class Where:
    """Folders and resources of this machine.

    Attributes:
        results: folder of the records.
        data_root: folder that holds the datasets.
        cache: folder of decoded images; `None` for no cache.
        plugins: folder of further plug-ins.
        data_options: reader options, by dataset name; by default those of the run.
        device: `auto`, `cpu`, `cuda`, `mps` or `xpu`.
        workers: number of threads that read images.
        threads: number of CPU threads; 0 for those of the run, or all cores.
    """

    results: Path
    data_root: Path
    cache: Path | None = None
    plugins: Path | None = None
    data_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    device: str = "auto"
    workers: int = 0
    threads: int = 0


def of_run(
    name: str, run: str, datasets: Sequence[str], checks: Sequence[str], where: Where, show: Show
) -> tuple[Path, list[dict[str, Any]]]:
    """Audits the network of a run; returns the folder of the run and the blocks of the asked audits.

    Args:
        name: the backbone of the run; may be empty.
        run: id of the run, or its first characters.
        datasets: datasets to look at; by default that of the run.
        checks: names of audits.
        where: folders and resources.
        show: receives progress.

    Raises:
        HarnessError: an unknown run or dataset, a run without a checkpoint, or images that cannot be read.
    """
    network = load(name, run=run, results=where.results, plugins=str(where.plugins or ""), device=where.device)
    record = network.source.record
    assert record is not None
    entries = [registry.dataset(dataset, where.plugins) for dataset in datasets or (record["spec"]["dataset"],)]
    torch.set_num_threads(where.threads or network.source.threads or processes.cores())
    folder = store.folder_of(where.results, record)
    found: list[dict[str, Any]] = []
    for entry in entries:
        known = {**(record["spec"].get("dataset_options") or {}), **(where.data_options or {})}
        splits = layouts.load(entry, where.data_root, **known.get(entry.name, {}))
        earlier = audit.merge(record.get("audits") or (), found)
        found += _audit(network, entry, splits, checks, earlier, folder, where, show)
    with files.locked(folder / ".lock"):
        record = store.read(folder)
        store.write(folder, {**record, "audits": audit.merge(record.get("audits") or (), found)})
    return folder, found


def _audit(
    network: Embedder,
    entry: DatasetEntry,
    splits: Splits,
    checks: Sequence[str],
    earlier: Sequence[Mapping[str, Any]],
    folder: Path,
    where: Where,
    show: Show,
) -> list[dict[str, Any]]:
    rows, why_mean = choose_cameras(network, entry.name, splits)
    if why_mean:
        show("warning", text=why_mean)
    reader = Reader(
        network.image_size,
        network.source.interpolation,
        folder=where.cache,
        value_range=splits.value_range,
        workers=where.workers,
        progress=lambda done, total: show("progress", stage="decode", done=done, total=total),
    )

    def batches(items: Sequence[Item], pictures: Images) -> Any:
        return network.data(items, pictures=pictures, rows=rows, value_range=splits.value_range, workers=where.workers)

    with mean_camera(network.module) if why_mean else contextlib.nullcontext():
        audited = AuditedNetwork(network.module, network.device, reader, batches, show)
        subject = Subject(
            dataset=entry.name,
            query=splits.query,
            gallery=splits.gallery,
            features=(audited.features(splits.query), audited.features(splits.gallery)),
            metric=network.source.metric,
            protocol=entry.card.protocol,
            knows_cameras=splits.knows_cameras,
            network=audited,
            open_images=reader.resized,
            earlier=earlier,
            train=splits.train,
            keep=lambda name, text: files.replace(folder / name, text),
            emit=show,
        )
        return audit.run(checks, subject)
