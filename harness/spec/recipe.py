"""Recipes: all settings of data, losses, optimisation and evaluation that may change results."""

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
"""Value of `loss.margin` for the soft margin: softplus instead of a hinge."""

SOFT_IN_SPECS = -1.0
"""The soft margin in the values of a run spec. Run ids depend on this number."""

LATER: dict[str, Any] = {
    "loss.triplet_kind": "batch-hard",
    "loss.triplet_branches": 0,
    "optimizer.layer_decay": 1.0,
    "optimizer.head_lr_factor": 1.0,
    "training.micro_batch": 0,
    "training.gradient_checkpointing": False,
    "training.compile": "no",
}
"""Keys that are younger than the first run ids, with their defaults. Run specs leave these defaults out."""


class Erasing(Struct, frozen=True, forbid_unknown_fields=True):
    """Random erasing of one rectangle per image.

    Attributes:
        probability: probability of erasing.
        area: smallest and largest area, as a fraction of the image.
        aspect: smallest and largest aspect ratio, height / width.
        aspect_draw: distribution of the ratio: `log-uniform` (torchvision, timm) or `uniform` (original BoT code).
        attempts: maximum number of draws until a rectangle fits into the image.
        fill: `noise` from N(0, 1) per value, or `mean` for `value`.
        value: one value per channel, after normalisation.
    """

    probability: Fraction = 0.5
    area: tuple[Fraction, Fraction] = (0.02, 0.4)
    aspect: tuple[Positive, Positive] = (0.3, 3.3)
    aspect_draw: Literal["log-uniform", "uniform"] = "log-uniform"
    attempts: PositiveCount = 10
    fill: Literal["noise", "mean"] = "noise"
    value: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Augmentation(Struct, frozen=True, forbid_unknown_fields=True):
    """Size and augmentation of images.

    Attributes:
        image_size: (height, width) in pixels.
        interpolation_train: filter for resizing training images.
        interpolation_test: filter for resizing test images.
        pad: zero padding on every side before the random crop, in pixels.
        flip: probability of a horizontal flip.
        erasing: random erasing.
    """

    image_size: tuple[Pixels, Pixels] = (256, 128)
    interpolation_train: Literal["bicubic", "bilinear"] = "bicubic"
    interpolation_test: Literal["bicubic", "bilinear"] = "bicubic"
    pad: Count = 10
    flip: Fraction = 0.5
    erasing: Erasing = Erasing()


class Sampler(Struct, frozen=True, forbid_unknown_fields=True):
    """PK sampling: P identities with K images each per batch.

    Attributes:
        identities: P.
        instances: K.
        epoch: length of an epoch. `one-pass`: until fewer than P identities are left (TransReID, BoT); `images-ceil`:
            N / (P * K) batches for N images, rounded up (ReIDMamba); `images-floor`: the same, rounded down; `fixed`:
            `iterations` batches.
        iterations: batches per epoch, for `fixed` only.
    """

    identities: Annotated[int, Meta(ge=2)] = 16
    instances: PositiveCount = 4
    epoch: Literal["one-pass", "images-ceil", "images-floor", "fixed"] = "images-ceil"
    iterations: Count = 0

    def images(self, count: float) -> float:
        """About how many images an epoch trains on, of so many in the training set."""
        return self.iterations * self.identities * self.instances if self.epoch == "fixed" else count


class Loss(Struct, frozen=True, forbid_unknown_fields=True):
    """Weights and settings of the losses, see `harness.losses`.

    Attributes:
        identity: weight of the identity classifier's cross-entropy.
        triplet: weight of the triplet loss.
        triplet_kind: `batch-hard` compares the hardest positive and negative of each image; `weighted` weighs all of
            them and has no margin (AGW); `multi-similarity` chooses pairs by `margin` and weighs them (LightMBN).
        triplet_branches: number of branches, from the first, that have a triplet loss; 0 is all.
        margin: margin of the triplet loss, or `soft` for the soft margin.
        label_smoothing: eps of label smoothing.
        smoothing_over: `all` gives eps / C to every class, `others` eps / (C - 1) to every wrong class.
        branches: `mean` over branches, or `first-half`: half the first, half the mean of the others (TransReID).
        center: weight of the center loss.
        center_lr: learning rate of the centers.
        ratr_intra: weight of RATR within identities.
        ratr_inter: weight of RATR between identities.
        ratr_temperature: temperature of RATR.
        precision: `fp32` computes all losses in float32, also under autocast. `autocast` computes the matrix products
            of triplet and RATR in autocast's precision, as the original code of TransReID and ReIDMamba does.
    """

    identity: NotNegative = 1.0
    triplet: NotNegative = 1.0
    triplet_kind: Literal["batch-hard", "weighted", "multi-similarity"] = "batch-hard"
    triplet_branches: Count = 0
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
    """Settings of the optimiser.

    Attributes:
        name: name of the optimiser.
        lr: learning rate.
        momentum: momentum of sgd.
        weight_decay: weight decay.
        bias_lr_factor: factor of the learning rate of biases.
        layer_decay: factor of the learning rate from each layer to the one before it; 1 gives all layers one rate.
        head_lr_factor: factor of the learning rate of the layers after the last block, such as the classifier.
        no_decay: `none`: all tensors have weight decay. `model`: tensors of one dimension and those named by the
            model's `no_weight_decay()` have none.
    """

    name: Literal["sgd", "adam", "amsgrad", "adamw"] = "sgd"
    lr: Positive = 0.008
    momentum: NotNegative = 0.9
    weight_decay: NotNegative = 1e-4
    bias_lr_factor: NotNegative = 1.0
    layer_decay: Annotated[float, Meta(gt=0, le=1)] = 1.0
    head_lr_factor: Positive = 1.0
    no_decay: Literal["none", "model"] = "none"


class Schedule(Struct, frozen=True, forbid_unknown_fields=True):
    """Learning-rate schedule. `harness.training.optim` documents the formula of each `kind` and the keys it uses."""

    kind: Literal["cosine-iterations", "transreid", "transreid-ssl", "reidmamba", "bot", "lightmbn", "constant"] = (
        "cosine-iterations"
    )
    warmup_epochs: NotNegative = 5.0
    warmup_iterations: Count = 0
    warmup_factor: NotNegative = 0.01
    final_factor: NotNegative = 0.002
    milestones: tuple[PositiveCount, ...] = ()
    gamma: Positive = 0.1
    period: Count = 0


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """Length and numerics of training.

    Attributes:
        epochs: number of epochs; 0 scores the starting weights.
        grad_clip: maximum norm of the gradient; 0 disables clipping.
        precision: `auto` is fp16 autocast with a gradient scaler on a GPU, and fp32 on a CPU.
        loss_scale: initial scale of the gradient scaler.
        deterministic: use only deterministic algorithms, which are slower on a GPU. A run with an operation that has
            none fails.
        micro_batch: number of images that pass through the network at once; 0 passes all that a process has. Losses
            are those of the whole batch. Batch norm uses the statistics of each such piece.
        gradient_checkpointing: compute the activations of each block again in the backward pass instead of keeping
            them.
        compile: mode of `torch.compile` in training: `default`, or `reduce-overhead`, which uses CUDA graphs. Random
            layers such as dropout then draw other numbers.
    """

    epochs: Count = 120
    grad_clip: NotNegative = 0.0
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    loss_scale: Positive = 65536.0
    deterministic: bool = False
    micro_batch: Count = 0
    gradient_checkpointing: bool = False
    compile: Literal["no", "default", "reduce-overhead"] = "no"


class Evaluation(Struct, frozen=True, forbid_unknown_fields=True):
    """Evaluation after the last epoch; no epoch is chosen on the test set. Each variant has its own row in tables.

    Attributes:
        metric: distance between features.
        flip: also average features with those of the flipped image.
        rerank: also re-rank.
        untrained: also score the model before training.
        batch_size: images per batch.
        max_rank: length of the CMC curve.
    """

    metric: Literal["cosine", "euclidean"] = "cosine"
    flip: bool = True
    rerank: bool = False
    untrained: bool = False
    batch_size: PositiveCount = 128
    max_rank: PositiveCount = 50


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """One complete recipe.

    Attributes:
        options: build options of the backbone.
        sources: source of a value, by its key.
    """

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

    def values(self, *, complete: bool = False) -> dict[str, Any]:
        """Returns all settings that may change results, as plain data, for the run spec.

        Args:
            complete: also return the keys of `LATER` that have their default.
        """
        values = msgspec.to_builtins(self)
        if values["loss"]["margin"] == SOFT:
            values["loss"]["margin"] = SOFT_IN_SPECS
        for name, default in () if complete else LATER.items():
            table, _, key = name.partition(".")
            if values[table][key] == default:
                del values[table][key]
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
            raise UsageError(f"{where}: {key} must be in increasing order, found {list(value)}.")
    if sampler.epoch == "fixed" and sampler.iterations <= 0:
        raise UsageError(f"{where}: sampler.epoch 'fixed' needs sampler.iterations of at least 1, found 0.")
    _check_batch(sampler, recipe.loss, where)
    _check_memory(recipe.training, sampler.identities * sampler.instances, where)
    return recipe


def _check_memory(training: Training, batch: int, where: str) -> None:
    """Checks the values that trade time for memory.

    Raises:
        UsageError: pieces do not divide the batch, or values cannot be combined.
    """
    if training.micro_batch and batch % training.micro_batch:
        raise UsageError(
            f"{where}: training.micro_batch must divide the batch of {batch} images (sampler.identities times "
            f"sampler.instances), found {training.micro_batch}."
        )
    others = {"micro_batch": training.micro_batch, "gradient_checkpointing": training.gradient_checkpointing}
    for name in (name for name, value in others.items() if value and training.compile != "no"):
        raise UsageError(f"{where}: training.compile cannot be combined with training.{name}. Leave one of them out.")


def _check_batch(sampler: Sampler, loss: Loss, where: str) -> None:
    """Checks the losses, and that batches are large enough for them.

    Raises:
        UsageError: every loss has weight 0, a margin is missing, or RATR has too few identities or images.
    """
    p, k = sampler.identities, sampler.instances
    if not (loss.identity or loss.triplet or loss.center or loss.ratr_intra or loss.ratr_inter):
        raise UsageError(f"{where}: every loss has weight 0; raise loss.identity or loss.triplet.")
    if loss.triplet > 0 and loss.triplet_kind == "multi-similarity" and loss.margin == SOFT:
        raise UsageError(f"{where}: the multi-similarity loss has no soft margin; set loss.margin, for example to 0.7.")
    if uses_ratr(loss) and min(p, k) < 3:
        raise UsageError(
            f"{where}: RATR needs sampler.identities and sampler.instances of at least 3, found {p} and {k}. Raise "
            "them, or set loss.ratr_intra and loss.ratr_inter to 0."
        )


def uses_ratr(loss: Loss) -> bool:
    """Returns whether RATR has a weight above 0."""
    return loss.ratr_intra > 0 or loss.ratr_inter > 0


def shown(key: str, value: Any) -> Any:
    """Returns a value of a run spec as it is written in recipe files: the soft margin is `soft`."""
    return SOFT if key == "loss.margin" and value == SOFT_IN_SPECS else value


def merge(table: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Returns `table` updated with the values of `other`, recursively."""
    merged = dict(table)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def nested(overrides: dict[str, Any]) -> dict[str, Any]:
    """Converts dotted keys to nested tables: {'loss.margin': 0.3} becomes {'loss': {'margin': 0.3}}.

    Raises:
        UsageError: one key is part of another.
    """
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
    """Returns the names of the recipes of the harness, and `native` for each backbone's own recipe."""
    return sorted([*(p.stem for p in FOLDER.glob("*.toml")), "native"])


def is_path(name: str) -> bool:
    """Returns whether a recipe is given as a path instead of a name."""
    return name.endswith(".toml") or "/" in name


def find(name: str, native: Path | None = None) -> Path:
    """Returns the file of a recipe.

    Args:
        name: name or path of the recipe.
        native: file of the backbone's native recipe, if it has one.

    Raises:
        UsageError: the recipe does not exist.
    """
    if name == "native":
        if native is None or not native.is_file():
            raise UsageError("This backbone has no native recipe. Use --recipe unified, or the path of a recipe file.")
        return native
    if is_path(name):
        if not Path(name).is_file():
            raise UsageError(f"Recipe file {name} does not exist. Pass another path or one of {', '.join(names())}.")
        return Path(name)
    if not (path := FOLDER / f"{name}.toml").is_file():
        raise unknown("recipe", name, names())
    return path


def load(path: Path, dataset: str = "", overrides: dict[str, Any] | None = None) -> Recipe:
    """Reads a recipe for a dataset.

    A file may contain `[dataset.NAME]` tables, whose values override the others for this dataset.

    Args:
        path: the TOML file.
        dataset: name of the dataset.
        overrides: dotted keys that override all others, from a variant, a search or `--set`.

    Raises:
        UsageError: a key or value is unknown or wrong.
    """
    table = read_toml(path)
    for_dataset = table.pop("dataset", {})
    if not isinstance(for_dataset, dict) or not all(isinstance(inner, dict) for inner in for_dataset.values()):
        raise UsageError(f"{path.name}: dataset must contain tables, [dataset.NAME], found {for_dataset!r}.")
    table = merge(table, for_dataset.get(dataset, {}))
    table = merge(table, nested(overrides or {}))
    table.setdefault("name", path.stem)
    return _recipe(table, path.name)
