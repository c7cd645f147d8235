"""Shared fixtures: the folder of reference material beside the checkout, quiet trackers, few threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "2")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material beside the checkout: golden values, official lists. Skips where it is absent."""
    place = REPOSITORY.parent / "shared"
    if not place.is_dir():
        pytest.skip("the reference material beside the checkout is absent")
    return place


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips GPU tests where no GPU is at hand."""
    if not any("gpu" in item.keywords for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
