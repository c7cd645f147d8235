"""Finds plug-ins by their cards, without importing their code, and loads the code on demand.

A plug-in is a folder with `card.toml`; a backbone's also holds `model.py` with
`build(*, num_classes, num_cameras, image_size, pretrained=None, **options) -> torch.nn.Module`.
Plug-ins come from the folders `backbones/` and `datasets/` of this repository, from the entry-point groups
`harness.backbones` and `harness.datasets` (the value names a package that holds the card), and from
`--plugins DIR` or `$HARNESS_PLUGINS`. Code of a plug-in runs only when it is named in a command.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness import places
from harness.cards import BackboneCard, DatasetCard, Variant, is_plain, read_card
from harness.errors import HarnessError, UsageError, unknown
from harness.spec import canonical

if TYPE_CHECKING:
    from torch import nn

    from harness.contracts import Splits

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class BackboneEntry:
    """A registered backbone, with the variant that was named. Nothing is imported until `build`."""

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

    def model(self) -> ModuleType:
        """Imports the plug-in's `model.py`."""
        return _import(self.folder, self.package, "model")

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
        for path in _source_files(self.folder):
            digest.update(path.name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
        return digest.hexdigest()


@dataclass(frozen=True)
class DatasetEntry:
    """A registered dataset. Reading is done by `datasets.layouts`, from the card's layouts."""

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
        layouts = importlib.import_module("datasets.layouts")
        return layouts.load(self, Path(root), **options)

    def fingerprint(self, root: str | os.PathLike[str], **options: Any) -> str:
        """Hash of what `load` would read; remembered between calls while the folders do not change."""
        layouts = importlib.import_module("datasets.layouts")
        return layouts.fingerprint(self, Path(root), **options)

    def reader(self, spec: str) -> Any:
        """Imports a reader that comes with the card, given as `file.py:function`."""
        file, _, function = spec.partition(":")
        found = getattr(_import(self.folder, self.package, file.removesuffix(".py")), function, None)
        if not callable(found):
            raise UsageError(f"The plug-in in {self.folder} has no function '{function}' in {file}.")
        return found


def backbone(name: str, plugins: Path | None = None) -> BackboneEntry:
    """Returns the backbone with this name, alias, or `name:variant`.

    Raises:
        UsageError: nobody registered it; the message suggests the nearest name.
    """
    base, _, variant = name.partition(":")
    entry = _get("backbone", base, plugins)
    card = entry.card
    if card.adapter and not variant:
        raise UsageError(f"Backbone '{card.name}' is an adapter: name a model, for example {card.name}:resnet50.")
    if variant and not card.adapter and variant not in card.variants:
        raise unknown(f"variant of {card.name}", variant, card.variants)
    return BackboneEntry(card, entry.folder, entry.package, variant)


def dataset(name: str, plugins: Path | None = None) -> DatasetEntry:
    """Returns the dataset with this name or alias; underscores stand for hyphens.

    Raises:
        UsageError: nobody registered it; the message suggests the nearest name.
    """
    entry = _get("dataset", name.replace("_", "-"), plugins)
    return DatasetEntry(entry.card, entry.folder, entry.package)


def backbones(plugins: Path | None = None) -> list[BackboneEntry]:
    """All registered backbones, by name."""
    found, _ = _scan("backbone", _plugins(plugins))
    return [BackboneEntry(f.card, f.folder, f.package) for _, f in sorted(found.items())]


def datasets(plugins: Path | None = None) -> list[DatasetEntry]:
    """All registered datasets, by name."""
    found, _ = _scan("dataset", _plugins(plugins))
    return [DatasetEntry(f.card, f.folder, f.package) for _, f in sorted(found.items())]


def broken(plugins: Path | None = None) -> dict[str, str]:
    """Plug-in folders whose card cannot be used, with the reason."""
    return {**_scan("backbone", _plugins(plugins))[1], **_scan("dataset", _plugins(plugins))[1]}


def resolve_backbones(names: str, plugins: Path | None = None) -> list[BackboneEntry]:
    """Resolves a comma list; `all` is every trainable backbone that is not an adapter."""
    chosen: list[str] = []
    for name in _split(names, "backbone"):
        every = [e.name for e in backbones(plugins) if e.card.trainable and not e.card.adapter]
        chosen += every if name == "all" else [name]
    return _unique([backbone(name, plugins) for name in chosen])


def resolve_datasets(names: str, plugins: Path | None = None) -> list[DatasetEntry]:
    """Resolves a comma list; `all` is the benchmark's datasets, a group name is all its members."""
    chosen: list[str] = []
    for name in (n.replace("_", "-") for n in _split(names, "dataset")):
        group = [e.name for e in datasets(plugins) if e.card.group == name or (name == "all" and e.card.in_all)]
        chosen += group or [name]
    return _unique([dataset(name, plugins) for name in chosen])


@dataclass(frozen=True)
class _Found:
    card: Any
    folder: Path
    package: str


def _split(names: str, kind: str) -> list[str]:
    if not (parts := [part.strip() for part in names.split(",") if part.strip()]):
        raise UsageError(f"No {kind} named; give a comma list, or 'all'.")
    return parts


def _unique(entries: list[Any]) -> list[Any]:
    return list({entry.name: entry for entry in entries}.values())


def _plugins(plugins: Path | None) -> str:
    folder = str(plugins) if plugins else places.variable(places.PLUGINS)
    return str(Path(folder).resolve()) if folder else ""


def _get(kind: str, name: str, plugins: Path | None) -> _Found:
    found, bad = _scan(kind, _plugins(plugins))
    for entry in found.values():
        if name == entry.card.name or name in entry.card.aliases:
            return entry
    for folder, reason in bad.items():
        if Path(folder).name.replace("_", "-") == name:
            raise UsageError(f"The {kind} '{name}' in {folder} cannot be used: {reason}")
    raise unknown(kind, name, [n for e in found.values() for n in (e.card.name, *e.card.aliases)])


@functools.cache
def _scan(kind: str, plugins: str) -> tuple[dict[str, _Found], dict[str, str]]:
    """Reads every card of one kind; a broken card becomes a reason, not a crash."""
    found: dict[str, _Found] = {}
    bad: dict[str, str] = {}
    for folder, package in _folders(kind, plugins):
        try:
            card = read_card(folder / "card.toml")
        except HarnessError as error:
            bad[str(folder)] = str(error)
            continue
        if card.kind != kind:
            continue
        taken = {n for e in found.values() for n in (e.card.name, *e.card.aliases)}
        if clash := taken & {card.name, *card.aliases}:
            raise UsageError(f"{folder}: the {kind} name '{min(clash)}' is taken already; rename the plug-in.")
        found[card.name] = _Found(card, folder, package)
    return found, bad


def _folders(kind: str, plugins: str) -> list[tuple[Path, str]]:
    """Folders that hold a card, each with the package name it is imported as."""
    own = REPOSITORY / f"{kind}s"
    folders = [(card.parent, f"{kind}s.{card.parent.name}") for card in sorted(own.glob("*/card.toml"))]
    for point in sorted(importlib.metadata.entry_points(group=f"harness.{kind}s"), key=lambda p: p.name):
        folders += [(place, point.value) for place in _places(point.value)]
    if plugins:
        base = Path(plugins)
        if not base.is_dir():
            raise UsageError(f"The plug-in folder {base} (--plugins, or ${places.PLUGINS}) is not a folder.")
        for card in sorted([*base.glob("card.toml"), *base.glob("*/card.toml"), *base.glob(f"{kind}s/*/card.toml")]):
            folders.append((card.parent, f"harness_plugins.{kind}s.{card.parent.name}"))
    return folders


def installed(module: str) -> bool:
    """Whether a module could be imported, told without importing it or a package around it."""
    package, _, name = module.rpartition(".")
    with contextlib.suppress(ValueError, ImportError):
        if not package:
            return bool(name) and importlib.util.find_spec(name) is not None
        return PathFinder.find_spec(module, [str(place) for place in _places(package)]) is not None
    return False


def _places(package: str) -> list[Path]:
    """Folders of a package, found without running its code or that of the packages around it."""
    first, *rest = package.split(".")
    with contextlib.suppress(ValueError, ImportError):
        spec = importlib.util.find_spec(first) if first else None
        for part in rest:
            spec = PathFinder.find_spec(part, spec.submodule_search_locations) if spec else None
        return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return []


def _import(folder: Path, package: str, module: str) -> ModuleType:
    """Imports `package.module`; a plug-in outside the import path is loaded by its folder, anew from another one."""
    known = list(getattr(sys.modules.get(package), "__path__", []))
    if package.startswith("harness_plugins.") and known != [str(folder)]:
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            del sys.modules[name]
        for parent in ("harness_plugins", package.rpartition(".")[0]):
            holder = sys.modules.setdefault(parent, ModuleType(parent))
            holder.__path__ = []
        plugin = ModuleType(package)
        plugin.__path__ = [str(folder)]
        sys.modules[package] = plugin
    try:
        return importlib.import_module(f"{package}.{module}")
    except ModuleNotFoundError as error:
        if error.name == f"{package}.{module}":
            raise UsageError(f"The plug-in in {folder} has no {module}.py.") from error
        raise UsageError(f"The plug-in in {folder} needs the module '{error.name}', which is not installed.") from error


def same_type(value: Any, default: Any, where: str) -> Any:
    """Converts text from the command line to the type of the default, or refuses."""
    if isinstance(value, str) and isinstance(default, bool):
        value = {"on": "True", "off": "False"}.get(value.lower(), value)
    if isinstance(value, str) and not isinstance(default, str):
        try:
            value = ast.literal_eval(value.capitalize() if value.lower() in ("true", "false") else value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise UsageError(f"{where} must be like {default!r}, found '{value}'.") from error
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default) or not is_plain(value):
        raise UsageError(f"{where} must be like {default!r}, found {value!r}.")
    return value


def _source_files(folder: Path) -> list[Path]:
    """The plug-in's Python files and, followed through imports, those of `backbones` they use."""
    pending = [p for p in sorted(folder.rglob("*.py")) if "__pycache__" not in p.parts]
    seen: dict[Path, None] = {}
    while pending:
        if (path := pending.pop(0)) in seen:
            continue
        seen[path] = None
        for name in _imported(path):
            pending += _files_of(name)
    return sorted(seen)


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    try:
        tree = ast.parse(path.read_bytes())
    except (ValueError, SyntaxError, RecursionError) as error:
        raise UsageError(f"{path} is not Python: {error}.") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.startswith("backbones.")}


def _files_of(name: str) -> list[Path]:
    base = REPOSITORY.joinpath(*name.split("."))
    if base.is_dir():
        return [p for p in sorted(base.rglob("*.py")) if "__pycache__" not in p.parts]
    return [base.with_suffix(".py")] if base.with_suffix(".py").is_file() else []
