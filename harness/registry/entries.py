"""Registered backbones and datasets: the card, and the code, which is imported on demand."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.cards import BackboneCard, DatasetCard, InputCard, Variant, same_type
from harness.errors import UsageError, unknown
from harness.registry.imports import import_plugin, installed
from harness.registry.source import source_files
from harness.spec.run_spec import canonical

if TYPE_CHECKING:
    from torch import nn

    from harness.contracts import BackboneCode, Splits


@dataclass(frozen=True)
class BackboneEntry:
    """A registered backbone with a variant. `model` and `build` import its code."""

    card: BackboneCard
    folder: Path
    package: str
    variant: str = ""

    @property
    def name(self) -> str:
        """Registered name with the variant: `reidmamba`, `reidmamba:strong-baseline`, `timm:resnet18`."""
        return f"{self.card.name}:{self.variant}" if self.variant else self.card.name

    @property
    def settings(self) -> Variant:
        """Build options and recipe keys of the variant; for an adapter, the option `model`."""
        if self.card.adapter or not self.variant:
            return Variant(about="", options={"model": self.variant} if self.card.adapter else {})
        return self.card.variants[self.variant]

    @property
    def native_recipe(self) -> Path:
        """Path of the backbone's native recipe; the file may not exist."""
        return self.folder / "native.toml"

    def options(self, given: dict[str, Any] | None = None) -> dict[str, Any]:
        """Returns all build options with their values; `given` overrides the variant, which overrides the card.

        Raises:
            UsageError: the card does not declare an option, or a value has another type.
        """
        values = {**self.card.options, **self.settings.options}
        for key, value in (given or {}).items():
            if key not in values:
                raise unknown(f"option of {self.card.name}", key, values)
            off = value == "off" and key in self.card.can_be_off
            values[key] = value if off else same_type(value, values[key], f"{self.card.name}.{key}")
        return values

    def embeds_cameras(self, options: dict[str, Any]) -> bool:
        """Returns whether, according to the card, a module built with these options embeds cameras."""
        return "camera" in self.card.side_information and options.get("camera_embedding", True) in (True, "on")

    def has_one_branch(self, options: dict[str, Any]) -> bool:
        """Returns whether, according to the card, a module built with these options has a single branch."""
        return any(all(options.get(k) == v for k, v in few.items()) for few in self.card.single_branch)

    @property
    def input(self) -> InputCard:
        """Input size and normalisation, from the card or, for an adapter, from its model."""
        if self.card.adapter:
            found: InputCard = self.model().input_card(self.variant)
            return found
        return self.card.input

    @property
    def names_timm_model(self) -> bool:
        """Whether the variant is the name of a timm model."""
        weights = self.card.pretrained
        return self.card.adapter and weights is not None and weights.timm == "{model}"

    def missing(self) -> list[str]:
        """Returns a sentence for every required distribution that is not installed."""
        return [
            f"{r.distribution} is not installed{': ' + r.why if r.why else ''}"
            for r in self.card.requires
            if not r.optional and not installed(r.module)
        ]

    def model(self) -> BackboneCode:
        """Imports and returns the plug-in's `model.py`.

        Raises:
            UsageError: the file or a module that it imports does not exist.
        """
        return cast("BackboneCode", import_plugin(self.folder, self.package, "model"))

    def build(
        self,
        *,
        num_classes: int,
        num_cameras: int,
        image_size: tuple[int, int],
        pretrained: Any = None,
        **options: Any,
    ) -> nn.Module:
        """Builds the module.

        Args:
            num_classes: number of identities of the training split.
            num_cameras: number of cameras of the training split.
            image_size: (height, width) in pixels.
            pretrained: path of the card's pretrained file; `None` for a random start.
            **options: build options, see the card.

        Raises:
            UsageError: an option is unknown or has another type.
        """
        return self.model().build(
            num_classes=num_classes,
            num_cameras=num_cameras,
            image_size=tuple(image_size),
            pretrained=pretrained,
            **self.options(options),
        )

    def source_hash(self) -> str:
        """Returns a hash of everything that defines the model.

        It covers the plug-in's Python files, the files that they import from `backbones`, and the input normalisation.
        Comments and docstrings do not change it.
        """
        digest = hashlib.sha256(canonical([self.card.input.mean, self.card.input.std]).encode())
        for path, facts in source_files(self.folder).items():
            digest.update(f"{path.name}\0{facts.code}\0".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class DatasetEntry:
    """A registered dataset. `datasets.layouts` reads it with the layouts of the card.

    Attributes:
        parts: the datasets that this one joins; see `harness.registry.joined`.
    """

    card: DatasetCard
    folder: Path
    package: str
    parts: tuple[DatasetEntry, ...] = ()

    @property
    def name(self) -> str:
        """Registered name."""
        return self.card.name

    @property
    def singles(self) -> tuple[DatasetEntry, ...]:
        """The datasets that this one joins, or itself."""
        return self.parts or (self,)

    def load(self, root: str | os.PathLike[str], **options: Any) -> Splits:
        """Reads the splits below the data root.

        Args:
            root: folder that contains the datasets, or the dataset's own folder.
            **options: reader options, see the card.

        Raises:
            DataError: the dataset is missing or damaged.
        """
        from datasets import layouts

        return layouts.load(self, Path(root), **options)

    def fingerprint(self, root: str | os.PathLike[str], **options: Any) -> str:
        """Returns a hash of the dataset that `load` would read; cached while the folders do not change.

        Raises:
            DataError: as `load`.
        """
        from datasets import layouts

        return layouts.fingerprint(self, Path(root), **options)

    def function(self, spec: str) -> Any:
        """Imports a reader or builder of the plug-in, given as `file.py:function`.

        Raises:
            UsageError: the file or function does not exist.
        """
        file, _, function = spec.partition(":")
        found = getattr(import_plugin(self.folder, self.package, file.removesuffix(".py")), function, None)
        if not callable(found):
            raise UsageError(f"The plug-in in {self.folder} has no function '{function}' in {file}.")
        return found
