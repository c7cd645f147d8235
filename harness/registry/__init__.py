"""The registry of backbones and datasets: finds their cards, imports their code on demand, and checks both."""

from harness.registry.entries import BackboneEntry, DatasetEntry
from harness.registry.lookup import (
    backbone,
    backbones,
    broken,
    dataset,
    datasets,
    resolve_backbones,
    resolve_datasets,
)

__all__ = [
    "BackboneEntry",
    "DatasetEntry",
    "backbone",
    "backbones",
    "broken",
    "dataset",
    "datasets",
    "resolve_backbones",
    "resolve_datasets",
]
