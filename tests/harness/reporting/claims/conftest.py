"""A laboratory's plug-in with published numbers and claims, and records of its runs in a results folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import registry
from harness.planning.request import Request, load_recipe
from harness.records import store
from harness.reporting.claims import Claims
from tests.support import record_samples as samples

CARD = """
kind = "backbone"
name = "ours"
title = "Ours"
feature_dim = 8
side_information = ["camera"]

[input]
image_size = [256, 128]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]

[options]
stride = 16
camera_embedding = true

[variants.stride12]
about = "overlapping patches"
options = { stride = 12 }

[pretrained]
files = ["ours.pth"]
trained_on = "ImageNet"

[[published]]
dataset = "market1501"
mAP = 80.0
rank1 = 90.0
image_size = [256, 128]
setup = "as in the paper"
source = "Table 1"

[[published]]
dataset = "market1501"
variant = "stride12"
mAP = 82.0
rank1 = 91.0
image_size = [256, 128]
flip = true
source = "Table 2"

[[published]]
dataset = "market1501"
mAP = 81.0
rank1 = 90.5
image_size = [256, 128]
checkpoint = true
setup = "released checkpoint"
source = "repository"

[[published]]
dataset = "market1501"
variant = "stride21"
mAP = 70.0
rank1 = 80.0
image_size = [256, 128]
source = "Table 3"
"""

CLAIMS = """
[[claims]]
metric = "parameters"
relation = "below"
factor = 0.36
comparator = "bot"
source = "abstract"

[[claims]]
metric = "memory"
relation = "below"
comparator = "bot"
device = "cuda"
source = "abstract"

[[claims]]
metric = "speed"
relation = "above"
comparator = "bot"
source = "abstract"

[[claims]]
metric = "mAP"
relation = "above"
comparator = "all"
datasets = ["market1501"]
text = "the best"
source = "abstract"
"""

RECIPE = """
name = "native"

[training]
epochs = 3
"""


class Lab:
    """The folders of the plug-in and of the results; writes records of runs.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.plugins, self.results = folder / "plugins", folder / "results"
        self.results.mkdir()
        place = self.plugins / "ours"
        place.mkdir(parents=True)
        (place / "card.toml").write_text(CARD + CLAIMS)
        (place / "native.toml").write_text(RECIPE)
        self._seeds = itertools.count()

    def spec(self, backbone: str = "ours", **changes: Any) -> Any:
        """The spec of a native run of the published network, apart from `changes`; `values` and `options` are added."""
        entry = registry.backbone(backbone, self.plugins)
        values = load_recipe(Request(recipe="native"), entry, "market1501").values()
        for key, value in changes.pop("values", {}).items():
            part, _, leaf = key.partition(".")
            values[part] = {**values[part], leaf: value}
        fields: dict[str, Any] = {"recipe": "native", "pretrained": "sha256:1", "seed": next(self._seeds)}
        options = entry.options(changes.pop("options", {}))
        return samples.spec(backbone, **{**fields, **changes}, values=values, options=options)

    def run(self, mAP: float, *, reach: float = 1.0, backbone: str = "ours", **changes: Any) -> dict[str, Any]:
        """Writes a finished run with this mAP, in percent, `reach` points from the ends of its interval."""
        own = {key: changes.pop(key) for key in ("data", "source", "per_query") if key in changes}
        evaluation = changes.pop("evaluation", {})
        low, high = (mAP - reach) / 100, (mAP + reach) / 100
        interval = {"mAP": [low, high], "rank-1": [low + 0.1, high + 0.1]}
        cmc = {"rank-1": mAP / 100 + 0.1, "rank-5": 0.99, "rank-10": 0.99, "cmc": [mAP / 100 + 0.1, 0.99]}
        row = samples.evaluation(mAP=mAP / 100, **{"interval": interval, **cmc, **evaluation})
        files = {}
        if values := own.get("per_query"):
            row["per_query"], files = "per_query.csv", {"per_query.csv": samples.per_query(values)}
        record = samples.ok(self.spec(backbone, **changes), row, source=own.get("source", "trained"))
        record["data"] = {**record["data"], **own.get("data", {})}
        store.write(store.folder_of(self.results, record), record, files)
        return record

    def cell(self, backbone: str, **numbers: Any) -> dict[str, Any]:
        """Writes a cell of the efficiency study."""
        own = {"measure": "inference", "threads": 2, "conditions": STEADY, "latency_ms": 50.0, **numbers}
        entry = registry.backbone(backbone, self.plugins)
        values = {"cell": sorted((k, str(v)) for k, v in numbers.items())}
        run = samples.spec(backbone, purpose="profile", dataset="random-images", values=values, options=entry.options())
        record = {**samples.ok(run, source="profile", **own), "evaluations": []}
        store.write(store.folder_of(self.results, record), record)
        return record

    def claims(self) -> Claims:
        """What the command judges."""
        return harness.claims(self.results, plugins=self.plugins)

    def verdicts(self) -> dict[str, tuple[str, str]]:
        """Verdict and reason of the plug-in's published numbers by their source."""
        return {r.source: (r.verdict, r.reason) for r in self.claims().published if r.backbone.startswith("ours")}

    def claim(self, metric: str) -> Any:
        """The judged claim about a metric."""
        return next(r for r in self.claims().claims if (r.backbone, r.claim.metric) == ("ours", metric))


STEADY = {"fixed_work_ms": [10.0, 10.0], "others_cores": 0.0, "notes": []}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def three(lab: Lab) -> Callable[..., list[dict[str, Any]]]:
    """Writes three native runs around a mAP: 0.1 points apart, so that the interval is 0.5 points to a side."""

    def write(mAP: float, **changes: Any) -> list[dict[str, Any]]:
        return [lab.run(mAP + more, **changes) for more in (-0.1, 0.0, 0.1)]

    return write
