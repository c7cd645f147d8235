"""Recipes: everything about data, losses, optimisation and evaluation that may change a number, as frozen values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cards import from_table, read_toml
from harness.errors import UsageError, unknown

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Erasing:
    """Random erasing, one rectangle. `fill`: `noise` is N(0,1) per pixel, `mean` is `value` in normalised space.

    `aspect_draw` is `log-uniform` (torchvision, timm) or `uniform` (the original BoT code).
    """

    probability: float = 0.5
    area: tuple[float, ...] = (0.02, 0.4)
    aspect: tuple[float, ...] = (0.3, 3.3)
    aspect_draw: str = "log-uniform"
    attempts: int = 10
    fill: str = "noise"
    value: tuple[float, ...] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Augmentation:
    """Image size is (height, width); `pad` is in pixels of zeros on every side before the random crop."""

    image_size: tuple[int, ...] = (256, 128)
    interpolation_train: str = "bicubic"
    interpolation_test: str = "bicubic"
    pad: int = 10
    flip: float = 0.5
    erasing: Erasing = field(default_factory=Erasing)


@dataclass(frozen=True)
class Sampler:
    """PK sampling. `epoch`: `one-pass` (until fewer than P identities remain, as TransReID and BoT),
    `images-ceil` (ceil(N / PK) batches, as ReIDMamba), `images-floor` (floor(N / PK)) or `fixed` (`iterations`).
    """

    identities: int = 16
    instances: int = 4
    epoch: str = "images-ceil"
    iterations: int = 0


@dataclass(frozen=True)
class Loss:
    """Weights and settings of the losses.

    `margin` below zero is the soft margin. `branches`: `mean` over branches, or `first-half`: half the first,
    half the mean of the others (TransReID). `smoothing_over`: `others` gives eps/(C-1), `all` gives eps/C.
    `precision`: `fp32` computes every loss in float32 also under autocast; `autocast` leaves the matrix products of
    triplet and RATR to it, as the original code of TransReID and ReIDMamba does.
    """

    identity: float = 1.0
    triplet: float = 1.0
    margin: float = -1.0
    label_smoothing: float = 0.0
    smoothing_over: str = "all"
    branches: str = "mean"
    center: float = 0.0
    center_lr: float = 0.5
    ratr_intra: float = 0.0
    ratr_inter: float = 0.0
    ratr_temperature: float = 0.1
    precision: str = "fp32"


@dataclass(frozen=True)
class Optimizer:
    """`name` is sgd, adam or adamw. `no_decay`: `none` (all tensors decay), or `model`: tensors of one dimension
    and those the model names in `no_weight_decay()` do not. Biases learn at `bias_lr_factor` times the rate.
    """

    name: str = "sgd"
    lr: float = 0.008
    momentum: float = 0.9
    weight_decay: float = 1e-4
    bias_lr_factor: float = 1.0
    no_decay: str = "none"


@dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule; `kind` names the formula, see `harness.training.optim` for each.

    `cosine-iterations` (warm-up per iteration, then cosine per iteration), `transreid`, `reidmamba`, `bot`.
    """

    kind: str = "cosine-iterations"
    warmup_epochs: float = 5.0
    warmup_iterations: int = 0
    warmup_factor: float = 0.01
    final_factor: float = 0.002
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    period: int = 0


@dataclass(frozen=True)
class Training:
    """Length and numerics of training; 0 epochs score the starting weights as they are.

    `precision`: `auto` is fp16 autocast with a scaler on a GPU, fp32 on a CPU. `deterministic`: only algorithms that
    repeat bit for bit, slower on a GPU; an operation that has none stops the run.
    """

    epochs: int = 120
    grad_clip: float = 0.0
    precision: str = "auto"
    loss_scale: float = 65536.0
    deterministic: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Scored after the last epoch, never chosen on the test set. Each variant is a row of its own."""

    metric: str = "cosine"
    flip: bool = True
    rerank: bool = False
    untrained: bool = False
    batch_size: int = 128
    max_rank: int = 50


@dataclass(frozen=True)
class Recipe:
    """One complete recipe; `sources` maps a key to where its value comes from."""

    name: str
    about: str = ""
    augmentation: Augmentation = field(default_factory=Augmentation)
    sampler: Sampler = field(default_factory=Sampler)
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    options: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Everything that may change a number, as plain data: no prose."""
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k not in ("about", "sources", "options")}


CHOICES: dict[str, tuple[str, ...]] = {
    "augmentation.interpolation_train": ("bicubic", "bilinear"),
    "augmentation.interpolation_test": ("bicubic", "bilinear"),
    "augmentation.erasing.aspect_draw": ("log-uniform", "uniform"),
    "augmentation.erasing.fill": ("noise", "mean"),
    "sampler.epoch": ("one-pass", "images-ceil", "images-floor", "fixed"),
    "loss.precision": ("fp32", "autocast"),
    "loss.branches": ("mean", "first-half"),
    "loss.smoothing_over": ("others", "all"),
    "optimizer.name": ("sgd", "adam", "adamw"),
    "optimizer.no_decay": ("none", "model"),
    "schedule.kind": ("cosine-iterations", "transreid", "reidmamba", "bot", "constant"),
    "training.precision": ("auto", "fp32", "fp16", "bf16"),
    "evaluation.metric": ("cosine", "euclidean"),
}

ABOVE_ZERO = (
    *("augmentation.erasing.aspect", "augmentation.erasing.attempts", "sampler.instances", "loss.ratr_temperature"),
    *("optimizer.lr", "schedule.milestones", "schedule.gamma", "training.loss_scale"),
    *("evaluation.batch_size", "evaluation.max_rank"),
)
NOT_NEGATIVE = (
    *("augmentation.pad", "sampler.iterations", "training.epochs", "training.grad_clip"),
    *("loss.identity", "loss.triplet", "loss.center", "loss.center_lr", "loss.ratr_intra", "loss.ratr_inter"),
    *("optimizer.momentum", "optimizer.weight_decay", "optimizer.bias_lr_factor"),
    *("schedule.warmup_epochs", "schedule.warmup_iterations", "schedule.warmup_factor", "schedule.final_factor"),
    "schedule.period",
)
FRACTIONS = (
    "augmentation.flip",
    "augmentation.erasing.probability",
    "augmentation.erasing.area",
    "loss.label_smoothing",
)
RISING = ("augmentation.erasing.area", "augmentation.erasing.aspect", "schedule.milestones")

LENGTHS = {"augmentation.erasing.area": 2, "augmentation.erasing.aspect": 2, "augmentation.erasing.value": 3}


def lookup(recipe: Recipe, key: str) -> Any:
    """Returns the value at a dotted key such as `optimizer.lr`."""
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


def from_values(name: str, values: dict[str, Any]) -> Recipe:
    """Rebuilds the recipe of a run spec from its values."""
    return _check(from_table(Recipe, {**values, "name": name}, f"recipe {name}"), name)


def _check(recipe: Recipe, where: str) -> Recipe:
    for key, choices in CHOICES.items():
        if (value := lookup(recipe, key)) not in choices:
            raise unknown(f"value of {key} in {where}", str(value), choices)
    for key, length in LENGTHS.items():
        if len(lookup(recipe, key)) != length:
            raise UsageError(f"{where}: {key} must have {length} values, found {len(lookup(recipe, key))}.")
    for keys, holds, what in (
        (ABOVE_ZERO, lambda value: value > 0, "above zero"),
        (NOT_NEGATIVE, lambda value: value >= 0, "zero or above"),
        (FRACTIONS, lambda value: 0 <= value <= 1, "from 0 to 1"),
    ):
        for key in keys:
            value = lookup(recipe, key)
            if not all(map(holds, value if isinstance(value, tuple) else (value,))):
                raise UsageError(f"{where}: {key} must be {what}, found {_shown(value)}.")
    for key in RISING:
        if list(value := lookup(recipe, key)) != sorted(value):
            raise UsageError(f"{where}: {key} must rise from the first value to the last, found {_shown(value)}.")
    if len(recipe.augmentation.image_size) != 2 or min(recipe.augmentation.image_size) < 8:
        raise UsageError(f"{where}: augmentation.image_size must be [height, width], each at least 8.")
    if recipe.sampler.epoch == "fixed" and recipe.sampler.iterations <= 0:
        raise UsageError(f"{where}: sampler.epoch 'fixed' needs sampler.iterations above zero.")
    _check_batch(recipe.sampler, recipe.loss, where)
    return recipe


def _check_batch(sampler: Sampler, loss: Loss, where: str) -> None:
    """Refuses batches that the losses have nothing to compare in."""
    p, k = sampler.identities, sampler.instances
    if p < 2:
        raise UsageError(
            f"{where}: sampler.identities must be 2 or above, for the losses compare identities; found {p}."
        )
    if not (loss.identity or loss.triplet or loss.center or loss.ratr_intra or loss.ratr_inter):
        raise UsageError(f"{where}: every loss has weight 0; raise loss.identity or loss.triplet.")
    if uses_ratr(loss) and min(p, k) < 3:
        raise UsageError(
            f"{where}: RATR ranks the other identities of a batch and the other images of an identity, so it needs "
            f"sampler.identities and sampler.instances of at least 3, found {p} and {k}. Raise them, or set "
            "loss.ratr_intra and loss.ratr_inter to 0."
        )


def uses_ratr(loss: Loss) -> bool:
    """Whether the ranking-aware regularisation is on."""
    return loss.ratr_intra > 0 or loss.ratr_inter > 0


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def merge(table: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Returns `table` with the values of `other` laid over it, table by table."""
    merged = dict(table)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def nested(overrides: dict[str, Any]) -> dict[str, Any]:
    """Turns dotted keys into tables: {'loss.margin': 0.3} becomes {'loss': {'margin': 0.3}}."""
    table: dict[str, Any] = {}
    for key, value in overrides.items():
        *parents, leaf = key.split(".")
        here = table
        for part in parents:
            here = here.setdefault(part, {})
            if not isinstance(here, dict):
                raise UsageError(f"{key} and {key[: -len(leaf) - 1]} cannot both be set: one is part of the other.")
        here[leaf] = value
    return table


def names() -> list[str]:
    """Names of the recipes that come with the harness; `native` is each backbone's own."""
    return sorted([*(p.stem for p in FOLDER.glob("*.toml")), "native"])


def is_path(name: str) -> bool:
    """Whether a recipe is given by its file, not by a name."""
    return name.endswith(".toml") or "/" in name


def find(name: str, native: Path | None = None) -> Path:
    """Returns the file of a recipe given by name or by path; `native` is the backbone's own file, if any."""
    if name == "native":
        if native is None or not native.is_file():
            raise UsageError("This backbone has no native recipe; use --recipe unified or a recipe file of yours.")
        return native
    if is_path(name):
        if not Path(name).is_file():
            raise UsageError(f"Recipe file {name} does not exist. Recipes by name: {', '.join(names())}.")
        return Path(name)
    if not (path := FOLDER / f"{name}.toml").is_file():
        raise unknown("recipe", name, names())
    return path


def load(path: Path, dataset: str = "", overrides: dict[str, Any] | None = None) -> Recipe:
    """Reads a recipe for a dataset.

    A file may hold `[dataset.NAME]` tables: values laid over the others for that dataset alone.

    Args:
        path: the TOML file.
        dataset: name of the dataset the recipe is for.
        overrides: dotted keys laid over all (a variant's, a search's, or `--set`).

    Raises:
        UsageError: an unknown key or value, named with the nearest known one.
    """
    table = read_toml(path)
    for_dataset = table.pop("dataset", {})
    if not isinstance(for_dataset, dict) or not all(isinstance(inner, dict) for inner in for_dataset.values()):
        raise UsageError(f"{path.name}: dataset must hold tables, [dataset.NAME], found {for_dataset!r}.")
    table = merge(table, for_dataset.get(dataset, {}))
    table = merge(table, nested(overrides or {}))
    table.setdefault("name", path.stem)
    return _check(from_table(Recipe, table, path.name), path.name)
