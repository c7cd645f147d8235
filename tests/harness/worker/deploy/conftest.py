"""Networks that were trained for a few steps on generated people, shared by the tests of their use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

import harness
from harness.records import store


class Trained(NamedTuple):
    """A finished run and where it lies."""

    run_id: str
    record: Any
    results: Path

    @property
    def folder(self) -> Path:
        return store.folder_of(self.results, self.record)

    @property
    def where(self) -> dict[str, Any]:
        return {"run": self.run_id, "results": self.results}


class Shop:
    """Trains a backbone on first use, with the preset `smoke`."""

    def __init__(self, world: Path, folder: Path) -> None:
        self.world, self.folder = world, folder
        self._runs: dict[str, Trained] = {}

    def __call__(self, backbone: str, **more: Any) -> Trained:
        if backbone not in self._runs:
            settings: dict[str, Any] = {"preset": "smoke", "scheduler": "local", "mlflow": False, "cpus_per_run": 1}
            settings |= {"data_root": self.world, "results": self.folder / "results", "cache": self.folder / "cache"}
            settings |= {"overrides": {"training.epochs": 1, "evaluation.flip": True}}
            (record,) = harness.run([backbone], ["market1501"], **settings, **more)
            assert record["status"] == "ok", record["error"]
            self._runs[backbone] = Trained(record["run_id"], record, self.folder / "results")
        return self._runs[backbone]


@pytest.fixture(scope="session")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Trains a backbone by name, once per session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_PICTURES", "0")
        return Shop(world, tmp_path_factory.mktemp("trained"))
