"""A registered backbone or dataset: its card, which is data, and its code, imported on demand."""

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
    """A registered backbone, with the variant that was named. `model` and `build` import its code."""

    card: BackboneCard
    folder: Path
    package: str
    variant: str = ""

    @property
    def name(self) -> str:
        """Registered name with the variant: `reidmamba`, `reidmamba:baseline`, `timm:resnet18`."""
        return f"{self.card.name}:{self.variant}" if self.variant else self.card.name

    @property
    def settings(self) -> Variant:
        """Build options and recipe keys of the variant; empty for an adapter's models."""
        if self.card.adapter or not self.variant:
            return Variant(about="", options={"model": self.variant} if self.card.adapter else {})
        return self.card.variants[self.variant]

    @property
    def native_recipe(self) -> Path:
        """The backbone's own recipe file; it may be absent."""
        return self.folder / "native.toml"

    def options(self, given: dict[str, Any] | None = None) -> dict[str, Any]:
        """Every build option with its value: card, then variant, then `given`.

        Raises:
            UsageError: an option the card does not declare, or one of another type.
        """
        values = {**self.card.options, **self.settings.options}
        for key, value in (given or {}).items():
            if key not in values:
                raise unknown(f"option of {self.card.name}", key, values)
            values[key] = same_type(value, values[key], f"{self.card.name}.{key}")
        return values

    def embeds_cameras(self, options: dict[str, Any]) -> bool:
        """Whether a module built with these options looks up the camera of an image, as far as its card says."""
        return "camera" in self.card.side_information and options.get("camera_embedding", True) in (True, "on")

    def has_one_branch(self, options: dict[str, Any]) -> bool:
        """Whether a module built with these options has a single branch, as far as its card says."""
        return any(all(options.get(k) == v for k, v in few.items()) for few in self.card.single_branch)

    @property
    def input(self) -> InputCard:
        """Input size and normalisation: the card's, or an adapter's for its model."""
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
        """Required distributions that are not installed, each as a sentence."""
        return [
            f"{r.distribution} is not installed{': ' + r.why if r.why else ''}"
            for r in self.card.requires
            if not r.optional and not installed(r.module)
        ]

    def model(self) -> BackboneCode:
        """Imports the plug-in's `model.py`."""
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
            num_classes: identities of the training split.
            num_cameras: cameras of the training split.
            image_size: (height, width) in pixels.
            pretrained: `None` (random start), or the path of the ImageNet file of the card.
            **options: build options, see the card.
        """
        return self.model().build(
            num_classes=num_classes,
            num_cameras=num_cameras,
            image_size=tuple(image_size),
            pretrained=pretrained,
            **self.options(options),
        )

    def source_hash(self) -> str:
        """Hash of what defines the model: the plug-in's Python files, those it imports from `backbones`,
        and the declared input normalisation.
        """
        digest = hashlib.sha256(canonical([self.card.input.mean, self.card.input.std]).encode())
        for path in source_files(self.folder):
            digest.update(path.name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
        return digest.hexdigest()


@dataclass(frozen=True)
class DatasetEntry:
    """A registered dataset. `datasets.layouts` does the reading, by the layouts of the card."""

    card: DatasetCard
    folder: Path
    package: str

    @property
    def name(self) -> str:
        """Registered name."""
        return self.card.name

    def load(self, root: str | os.PathLike[str], **options: Any) -> Splits:
        """Reads the splits below the data root.

        Args:
            root: the folder that holds the datasets, or the dataset's own folder.
            **options: reader options, see the card.

        Raises:
            DataError: nothing found, or what was found is damaged.
        """
        from datasets import layouts

        return layouts.load(self, Path(root), **options)

    def fingerprint(self, root: str | os.PathLike[str], **options: Any) -> str:
        """Hash of what `load` would read; remembered between calls while the folders do not change.

        Raises:
            DataError: as `load`.
        """
        from datasets import layouts

        return layouts.fingerprint(self, Path(root), **options)

    def function(self, spec: str) -> Any:
        """Imports a reader or builder that comes with the card, given as `file.py:function`.

        Raises:
            UsageError: the plug-in has no such function.
        """
        file, _, function = spec.partition(":")
        found = getattr(import_plugin(self.folder, self.package, file.removesuffix(".py")), function, None)
        if not callable(found):
            raise UsageError(f"The plug-in in {self.folder} has no function '{function}' in {file}.")
        return found
