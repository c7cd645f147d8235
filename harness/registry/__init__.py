"""Finds backbones and datasets by their cards, loads their code on demand, and checks both."""

from harness.registry.entries import BackboneEntry, DatasetEntry
from harness.registry.joined import join, others
from harness.registry.lookup import (
    backbone,
    backbones,
    broken,
    dataset,
    datasets,
)
from harness.registry.selection import groups, resolve_backbones, resolve_datasets

__all__ = [
    "BackboneEntry",
    "DatasetEntry",
    "backbone",
    "backbones",
    "broken",
    "dataset",
    "datasets",
    "groups",
    "join",
    "others",
    "resolve_backbones",
    "resolve_datasets",
]
