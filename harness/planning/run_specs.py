"""The only place where run specs are made, for training, search, efficiency measurements and scored files."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from harness.planning.request import Request, chosen_options, resolve_device
from harness.registry import BackboneEntry
from harness.spec.run_spec import RunSpec
from harness.system.version import PROTOCOL_VERSION


class SpecFactory:
    """Makes the run specs of one request.

    Args:
        request: has the device, and the options of backbones and readers.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.device = resolve_device(request.device)
        self._sources: dict[str, str] = {}

    def make(
        self,
        backbone: BackboneEntry | None,
        dataset: str,
        recipe: str,
        values: dict[str, Any],
        *,
        name: str = "",
        recipe_options: Mapping[str, Any] | None = None,
        scored_on: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> RunSpec:
        """Makes a run spec with seed 0.

        Args:
            backbone: the backbone, or None for features of an unregistered network.
            dataset: name of the dataset that is trained on, or whose images are scored.
            recipe: name of the recipe.
            values: every value of the recipe.
            name: name of an unregistered network.
            recipe_options: build options that the recipe sets; options of the request override them.
            scored_on: fingerprints of further datasets by name.
            **fields: other fields of the `RunSpec`.

        Raises:
            UsageError: a build option that the backbone does not have.
        """
        others = scored_on or {}
        options = {**(recipe_options or {}), **chosen_options(self.request, backbone)} if backbone else {}
        readers = self.request.dataset_options
        return RunSpec(
            backbone=backbone.name if backbone else name,
            dataset=dataset,
            recipe=recipe,
            values=values,
            seed=0,
            device=self.device,
            protocol=PROTOCOL_VERSION,
            torch=torch_version(),
            source=self._source(backbone) if backbone else "",
            options=backbone.options(options) if backbone else {},
            dataset_options={key: readers[key] for key in (dataset, *others) if readers.get(key)},
            evaluate_on=tuple(others.items()),
            **fields,
        )

    def _source(self, backbone: BackboneEntry) -> str:
        name = backbone.card.name
        if name not in self._sources:  # not `setdefault`, which would hash the files once per run
            self._sources[name] = backbone.source_hash()
        return self._sources[name]


@functools.cache
def torch_version() -> str:
    """Major.Minor of the installed torch, without importing it."""
    return ".".join(importlib.metadata.version("torch").split(".")[:2])
