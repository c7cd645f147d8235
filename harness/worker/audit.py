"""Runs audits on the network of a run, or on stored features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.audits.subject import Change, Changed
from harness.contracts import Item, camera_parts
from harness.data.loader import EvaluationData
from harness.data.reader import Reader
from harness.data.transforms import Images
from harness.worker.scoring import Emit, extract

Load = Callable[[Sequence[Item], Images], EvaluationData]


class AuditedNetwork:
    """A network that computes features of changed images, see `harness.audits.subject.Network`.

    Images are decoded once: every pass reads them from the cache.

    Args:
        module: the backbone, as the evaluation left it.
        device: where it runs.
        reader: reads images.
        load: makes the evaluation batches of items from resized images.
        emit: receives progress events.
    """

    def __init__(self, module: nn.Module, device: torch.device, reader: Reader, load: Load, emit: Emit) -> None:
        self._module, self._device, self._load, self._reader = module, device, load, reader
        self._emit: Emit = lambda event, **values: emit(event, **{**values, "stage": "audit"})
        self.camera_mode = next((mode for mode in ("on", "mean") if camera_parts(module, mode)), "")

    def images(self, items: Sequence[Item]) -> Images:
        """Returns the resized images of the items."""
        return self._reader.resized(items)

    def features(
        self, items: Sequence[Item], *, change: Change | None = None, original: bool = False, cameras: str = ""
    ) -> Tensor:
        """Computes features [N, D]."""
        if change and original:
            images: Images = Changed(self._reader.originals(items), change, self._reader.resize)
        else:
            images = Changed(self.images(items), change) if change else self.images(items)
        data = self._load(items, images)
        with using_cameras(self._module, cameras or self.camera_mode):
            return extract(self._module, data, self._device, flip=False, emit=self._emit).plain


@contextlib.contextmanager
def using_cameras(module: nn.Module, mode: str) -> Iterator[None]:
    """Sets the mode of every camera embedding that is in use, and restores it."""
    before: list[tuple[Any, str]] = [(part, old) for old in ("on", "mean") for part in camera_parts(module, old)]
    try:
        for part, _ in before:
            part.camera_mode = mode
        yield
    finally:
        for part, old in before:
            part.camera_mode = old
