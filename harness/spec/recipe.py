"""Recipes: everything about data, losses, optimisation and evaluation that may change a number, as frozen values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from harness.cards import from_table, read_toml
from harness.errors import UsageError, unknown

FOLDER = Path(__file__).parent / "recipes"

Fraction = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
PositiveCount = Annotated[int, Meta(ge=1)]
Pixels = Annotated[int, Meta(ge=8)]

SOFT: Literal["soft"] = "soft"
"""Margin of the triplet loss: its soft margin, softplus in place of a hinge."""

SOFT_IN_SPECS = -1.0
"""The soft margin in the values of a run spec, which run ids depend on."""


class Erasing(Struct, frozen=True, forbid_unknown_fields=True):
    """Random erasing, one rectangle. `fill`: `noise` is N(0,1) per pixel, `mean` is `value` in normalised space.

    `aspect_draw` is `log-uniform` (torchvision, timm) or `uniform` (the original BoT code).
    """

    probability: Fraction = 0.5
    area: tuple[Fraction, Fraction] = (0.02, 0.4)
    aspect: tuple[Positive, Positive] = (0.3, 3.3)
    aspect_draw: Literal["log-uniform", "uniform"] = "log-uniform"
    attempts: PositiveCount = 10
    fill: Literal["noise", "mean"] = "noise"
    value: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Augmentation(Struct, frozen=True, forbid_unknown_fields=True):
    """Image size is (height, width); `pad` is in pixels of zeros on every side before the random crop."""

    image_size: tuple[Pixels, Pixels] = (256, 128)
    interpolation_train: Literal["bicubic", "bilinear"] = "bicubic"
    interpolation_test: Literal["bicubic", "bilinear"] = "bicubic"
    pad: Count = 10
    flip: Fraction = 0.5
    erasing: Erasing = Erasing()


class Sampler(Struct, frozen=True, forbid_unknown_fields=True):
    """PK sampling. `epoch`: `one-pass` (until fewer than P identities remain, as TransReID and BoT),
    `images-ceil` (ceil(N / PK) batches, as ReIDMamba), `images-floor` (floor(N / PK)) or `fixed` (`iterations`).
    """

    identities: Annotated[int, Meta(ge=2)] = 16
    instances: PositiveCount = 4
    epoch: Literal["one-pass", "images-ceil", "images-floor", "fixed"] = "images-ceil"
    iterations: Count = 0


class Loss(Struct, frozen=True, forbid_unknown_fields=True):
    """Weights and settings of the losses.

    `margin` is a number, or `soft` for the soft margin. `branches`: `mean` over branches, or `first-half`: half the
    first, half the mean of the others (TransReID). `smoothing_over`: `others` gives eps/(C-1), `all` gives eps/C.
    `precision`: `fp32` computes every loss in float32 also under autocast; `autocast` leaves the matrix products of
    triplet and RATR to it, as the original code of TransReID and ReIDMamba does.
    """

    identity: NotNegative = 1.0
    triplet: NotNegative = 1.0
    margin: Literal["soft"] | NotNegative = SOFT
    label_smoothing: Fraction = 0.0
    smoothing_over: Literal["others", "all"] = "all"
    branches: Literal["mean", "first-half"] = "mean"
    center: NotNegative = 0.0
    center_lr: NotNegative = 0.5
    ratr_intra: NotNegative = 0.0
    ratr_inter: NotNegative = 0.0
    ratr_temperature: Positive = 0.1
    precision: Literal["fp32", "autocast"] = "fp32"


class Optimizer(Struct, frozen=True, forbid_unknown_fields=True):
    """`name` is sgd, adam or adamw. `no_decay`: `none` (all tensors decay), or `model`: tensors of one dimension
    and those the model names in `no_weight_decay()` do not. Biases learn at `bias_lr_factor` times the rate.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive = 0.008
    momentum: NotNegative = 0.9
    weight_decay: NotNegative = 1e-4
    bias_lr_factor: NotNegative = 1.0
    no_decay: Literal["none", "model"] = "none"


class Schedule(Struct, frozen=True, forbid_unknown_fields=True):
    """Learning-rate schedule; `kind` names the formula, see `harness.training.optim` for each.

    `cosine-iterations` (warm-up per iteration, then cosine per iteration), `transreid`, `reidmamba`, `bot`.
    """

    kind: Literal["cosine-iterations", "transreid", "reidmamba", "bot", "constant"] = "cosine-iterations"
    warmup_epochs: NotNegative = 5.0
    warmup_iterations: Count = 0
    warmup_factor: NotNegative = 0.01
    final_factor: NotNegative = 0.002
    milestones: tuple[PositiveCount, ...] = ()
    gamma: Positive = 0.1
    period: Count = 0


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """Length and numerics of training; 0 epochs score the starting weights as they are.

    `precision`: `auto` is fp16 autocast with a scaler on a GPU, fp32 on a CPU. `deterministic`: only algorithms that
    repeat bit for bit, slower on a GPU; an operation that has none stops the run.
    """

    epochs: Count = 120
    grad_clip: NotNegative = 0.0
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    loss_scale: Positive = 65536.0
    deterministic: bool = False


class Evaluation(Struct, frozen=True, forbid_unknown_fields=True):
    """Scored after the last epoch, never chosen on the test set. Each variant is a row of its own."""

    metric: Literal["cosine", "euclidean"] = "cosine"
    flip: bool = True
    rerank: bool = False
    untrained: bool = False
    batch_size: PositiveCount = 128
    max_rank: PositiveCount = 50


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """One complete recipe; `sources` maps a key to where its value comes from."""

    name: str
    about: str = ""
    augmentation: Augmentation = Augmentation()
    sampler: Sampler = Sampler()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    options: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def values(self) -> dict[str, Any]:
        """Everything that may change a number, as plain data: no prose."""
        values = msgspec.to_builtins(self)
        if values["loss"]["margin"] == SOFT:
            values["loss"]["margin"] = SOFT_IN_SPECS
        return {k: v for k, v in values.items() if k not in ("about", "sources", "options")}


def from_values(name: str, values: dict[str, Any]) -> Recipe:
    """Rebuilds the recipe of a run spec from its values."""
    return _recipe({**values, "name": name}, f"recipe {name}")


def _recipe(table: dict[str, Any], where: str) -> Recipe:
    loss = table.get("loss")
    if isinstance(loss, dict) and loss.get("margin") == SOFT_IN_SPECS:
        table = {**table, "loss": {**loss, "margin": SOFT}}
    recipe = from_table(Recipe, table, where)
    erasing, sampler = recipe.augmentation.erasing, recipe.sampler
    for key, value in (
        ("augmentation.erasing.area", erasing.area),
        ("augmentation.erasing.aspect", erasing.aspect),
        ("schedule.milestones", recipe.schedule.milestones),
    ):
        if list(value) != sorted(value):
            raise UsageError(f"{where}: {key} must rise from the first value to the last, found {list(value)}.")
    if sampler.epoch == "fixed" and sampler.iterations <= 0:
        raise UsageError(f"{where}: sampler.epoch 'fixed' needs sampler.iterations above zero.")
    _check_batch(sampler, recipe.loss, where)
    return recipe


def _check_batch(sampler: Sampler, loss: Loss, where: str) -> None:
    """Refuses batches that the losses have nothing to compare in."""
    p, k = sampler.identities, sampler.instances
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


def shown(key: str, value: Any) -> Any:
    """A value of a run spec as a recipe file writes it: the soft margin is `soft`."""
    return SOFT if key == "loss.margin" and value == SOFT_IN_SPECS else value


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
    return _recipe(table, path.name)
