"""Shared fixtures: the folder of reference material beside the checkout, quiet trackers, few threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.system.paths import cache_folder

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "numba"))  # the other caches start empty
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads would use the cores of other tests

REPOSITORY = Path(__file__).resolve().parent.parent
RUNS = {"quick_runs", "phantoms"}
"""Fixtures of tests that start whole runs or lay out whole datasets; such tests are marked `slow`."""
SITE = REPOSITORY / "tests" / "support" / "site"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material beside the checkout: golden values, official lists. Skips where it is absent."""
    place = REPOSITORY.parent / "shared"
    if not place.is_dir():
        pytest.skip(f"needs the golden values and official lists in {place}; with them run: python -m pytest")
    return place


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts long files first, so workers finish together; marks tests of whole runs; skips tests that need a GPU."""
    items.sort(key=lambda item: item.path.parent.name != "reliability")
    for item in items:
        if RUNS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    on_gpu = [item for item in items if "gpu" in item.keywords]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; there run: python -m pytest -m gpu"))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with small generated stand-ins of all datasets; tests must not write into it."""
    from datasets.synthetic import generate

    root = tmp_path_factory.mktemp("world")
    generate(root, scale="smoke", size=(64, 32))
    return root


@pytest.fixture(scope="module")
def quick_runs() -> Iterator[None]:
    """Runs that this module starts draw no pictures and do not import torch's compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_PICTURES", "0")
        patch.setenv("HARNESS_TEST_QUICK", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps decoded images and fingerprints of tests out of the user's cache."""
    os.environ["HARNESS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls the command line in this process; returns exit code, standard output and standard error."""
    monkeypatch.delenv("COLUMNS", raising=False)  # the workers of pytest-xdist set it to 80

    def call(*arguments: object) -> tuple[int, str, str]:
        from harness.cli import main

        monkeypatch.setattr("sys.argv", ["harness", *map(str, arguments)])
        capfd.readouterr()
        code = main()
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def plugin_folder(tmp_path: Path) -> Path:
    """A `--plugins` folder with a tiny backbone `pixels`: a linear layer on a 4x2 thumbnail."""
    folder = tmp_path / "plugins" / "pixels"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(PIXELS_CARD)
    (folder / "model.py").write_text(PIXELS_MODEL)
    return folder.parent


PIXELS_CARD = """
kind = "backbone"
name = "pixels"
title = "Linear layer on a thumbnail"
feature_dim = 24

[options]
fault = ""

[input]
image_size = [64, 32]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""

PIXELS_MODEL = '''
"""A linear layer on a 4x2 thumbnail, with faults on request."""

import os
from collections.abc import Callable, Iterator
import time

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from harness.contracts import TrainingOutput


class Pixels(nn.Module):
    feature_dim = 24

    def __init__(self, num_classes, fault):
        super().__init__()
        self.mix = nn.Linear(24, 24)
        self.classify = nn.Linear(24, num_classes)
        self.fault = fault

    def forward(self, images, camera_ids):
        features = self.mix(adaptive_avg_pool2d(images, (4, 2)).flatten(1))
        if not self.training:
            if self.fault == "nan-features":
                features = features * float("nan")
            return features
        if self.fault == "nan":
            features = features * float("nan")
        if self.fault == "raise":
            raise ValueError("this backbone breaks | on purpose")
        if self.fault == "kill":
            os.kill(os.getpid(), 9)
        if self.fault == "hang":
            time.sleep(600)
        if self.fault == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory (faked)")
        if self.fault == "slow":
            time.sleep(0.2)
        return TrainingOutput([self.classify(features)], [features])


def build(*, num_classes, num_cameras, image_size, pretrained=None, fault=""):
    if fault == "build":
        raise RuntimeError("it cannot be built")
    return Pixels(num_classes, fault)
'''
