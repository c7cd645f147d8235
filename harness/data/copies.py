"""Copies the images of a batch to a GPU while it works on the batch before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from harness.data.loader import Batch


def copied_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yields the batches with their images on the device; the images of the next batch are copied meanwhile.

    Labels and cameras stay on the CPU, where they are checked. Without a GPU, nothing is copied.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream, waiting = torch.cuda.Stream(device), None
    for batch in batches:
        with torch.cuda.stream(stream):
            images = batch.images.to(device, non_blocking=True)
            copied = stream.record_event()
        if waiting is not None:
            yield _ready(*waiting)
        waiting = batch._replace(images=images), copied
    if waiting is not None:
        yield _ready(*waiting)


def _ready(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """Makes the work that follows wait for the copy, and keeps the memory until that work is done."""
    work = torch.cuda.current_stream(batch.images.device)
    work.wait_event(copied)
    batch.images.record_stream(work)
    return batch
