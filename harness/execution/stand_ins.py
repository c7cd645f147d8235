"""Generates the stand-in data of a preset for the datasets that a request names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click import echo

from harness import registry
from harness.planning.request import Request
from harness.system import processes
from harness.system.paths import short


def draw(request: Request, settings: Mapping[str, Any], *, dry_run: bool = False) -> bool:
    """Generates stand-in data for the requested datasets, unless it is there already.

    Leaves a data root with other data unchanged, because stand-ins beside real data look like real data.

    Args:
        request: names the datasets and the data root.
        settings: table `generate` of the preset.
        dry_run: only print what would be generated.

    Returns:
        Whether a dry run found missing data.
    """
    from datasets.synthetic import LAYOUTS, foreign, generate

    root = Path(request.paths.data_root)
    asked = ",".join(filter(None, (request.datasets, request.eval_datasets)))
    entries = registry.resolve_datasets(asked, request.plugins)
    cards = [part.card for entry in entries for part in entry.singles]
    folders = {folder for card in cards for layout in card.layouts for folder in layout.folders}
    names = [name for name, layout in LAYOUTS.items() if layout.folder in folders]
    absent = [name for name in names if not (root / LAYOUTS[name].folder).exists()]
    other = foreign(root)
    if absent and other:
        echo(f"No data is generated in {short(root)}, because the folder holds other data ({other}).")
    elif absent and dry_run:
        echo(f"Would first generate data in {short(root)} for {', '.join(absent)}.")
    if dry_run or other or not names:
        return bool(dry_run and absent and not other)
    generate(
        root,
        layouts=names,
        scale=settings["scale"],
        seed=settings.get("seed", 0),
        size=tuple(settings.get("size", [128, 64])),
        progress=_progress_printer(),
        workers=min(4, processes.cores()),
    )
    return False


def _progress_printer() -> Any:
    """Returns a progress callback that prints at most once per second."""
    import time

    last = [0.0]

    def show(done: int, total: int) -> None:
        if done == total or time.monotonic() - last[0] > 1.0:
            last[0] = time.monotonic()
            echo(f"  generating data: {done}/{total} images")

    return show
