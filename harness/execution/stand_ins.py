"""Draws the generated people of a preset, for the datasets that a request names."""

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
    """Draws the preset's people for the datasets asked for, once; returns whether a dry run left some undrawn.

    A data root that holds other data is left as it is: stand-ins beside real data look like real data.
    """
    from datasets.synthetic import LAYOUTS, foreign, generate

    root = Path(request.paths.data_root)
    asked = ",".join(filter(None, (request.datasets, request.eval_datasets)))
    cards = [entry.card for entry in registry.resolve_datasets(asked, request.plugins)]
    folders = {folder for card in cards for layout in card.layouts for folder in layout.folders}
    names = [name for name, layout in LAYOUTS.items() if layout.folder in folders]
    absent = [name for name in names if not (root / LAYOUTS[name].folder).exists()]
    other = foreign(root)
    if absent and other:
        echo(f"No people are drawn into {short(root)}, because it holds other data ({other}).")
    elif absent and dry_run:
        echo(f"People would be drawn into {short(root)} first, for {', '.join(absent)}.")
    if dry_run or other or not names:
        return bool(dry_run and absent and not other)
    generate(
        root,
        layouts=names,
        scale=settings["scale"],
        seed=settings.get("seed", 0),
        size=tuple(settings.get("size", [128, 64])),
        progress=_drawn(),
        workers=min(4, processes.cores()),
    )
    return False


def _drawn() -> Any:
    """A progress callback that prints at most once a second."""
    import time

    last = [0.0]

    def show(done: int, total: int) -> None:
        if done == total or time.monotonic() - last[0] > 1.0:
            last[0] = time.monotonic()
            echo(f"  drawing people: {done}/{total} images")

    return show
