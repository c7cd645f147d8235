"""Checks a backbone against its card and the plug-in interface, with randomly initialised weights on the CPU."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness import registry
from harness.cards import ALL
from harness.contracts import feature_dim, no_weight_decay, published_loader, set_camera_mode
from harness.errors import HarnessError
from harness.registry import BackboneEntry
from harness.registry.findings import EXAMPLES, Finding

CLASSES, CAMERAS, BATCH = 5, 3, 4
SEED = 0
UNKNOWN_OPTION = "no_such_option"
TOLERANCE = 1e-3
"""Maximum relative change of a feature when its image is alone in the batch; kernels sum in a different order."""


@dataclass
class _Checks:
    entry: BackboneEntry
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.size = self.entry.card.input.image_size
        generator = torch.Generator().manual_seed(SEED)
        self.images = torch.rand(BATCH, 3, *self.size, generator=generator)
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.entry.card.input.mean, self.entry.card.input.std))
        self.images = (self.images - mean) / std
        self.cameras = torch.arange(BATCH) % CAMERAS

    def say(self, level: str, sentence: str, *examples: str) -> None:
        self.findings.append(Finding(level, sentence, examples[:EXAMPLES]))

    def demand(self, holds: bool, sentence: str, *examples: str) -> None:
        if not holds:
            self.say("error", sentence, *examples)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Turns an exception into a finding, so that the checks that follow still run."""
        try:
            yield
        except HarnessError as error:
            self.say("error", f"{what} is refused: {error}")
        except Exception as error:  # plug-in code may raise any exception
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno}"
            self.say("error", f"{what} fails in {where} with {type(error).__name__}: {str(error).rstrip('.')}.")

    def build(self, seed: int = SEED, **options: Any) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.entry.build(num_classes=CLASSES, num_cameras=CAMERAS, image_size=self.size, **options)


def check(entry: BackboneEntry) -> list[Finding]:
    """Runs all checks of a backbone.

    - The card is valid, and its parameter counts are right.
    - Unknown options are refused.
    - The same seed builds the same weights.
    - Training output and gradients are right.
    - The test-time feature has the right width, is deterministic and does not depend on the rest of the batch.
    - The feature depends on the camera only if the card says so.
    - `load_published` refuses checkpoints that do not fit.

    Args:
        entry: the backbone, with its variant.

    Returns:
        The findings. Without a finding of level `error`, the backbone fulfils the plug-in interface.
    """
    if missing := entry.missing():
        return [Finding("error", f"{entry.name} cannot be built: {'; '.join(missing)}. Install it with pip.")]
    checks = _Checks(entry)
    _card(checks)
    module: nn.Module | None = None
    with checks.step("Building the model"):
        module = checks.build()
    if module is not None:
        for what, run in STEPS.items():
            with checks.step(what):
                run(checks, module)
    with checks.step("Counting parameters"):
        _parameters(checks)
    return checks.findings


def _card(checks: _Checks) -> None:
    card = checks.entry.card
    found = f"found {list(card.input.mean)} and {list(card.input.std)}"
    checks.demand(
        len(card.input.mean) == len(card.input.std) == 3,
        f"input.mean and input.std of the card need three values each, {found}.",
    )
    checks.demand(
        all(value > 0 for value in card.input.std),
        f"All values of input.std in the card must be above 0, found {list(card.input.std)}.",
    )
    known = {entry.name for entry in registry.datasets()}
    if unknown := sorted({row.dataset for row in card.published} - known):
        checks.say("error", "The card has published results of datasets that are not registered.", *unknown)
    compared = {claim.comparator.partition(":")[0] for claim in card.claims} - {ALL}
    if unknown := sorted(compared - {entry.name for entry in registry.backbones()} - {card.name}):
        checks.say("warning", "The card has claims about backbones that are not registered.", *unknown)
    if unknown := sorted({name for claim in card.claims for name in claim.datasets} - known):
        checks.say("error", "The card has claims about datasets that are not registered.", *unknown)
    for name, variant in card.variants.items():
        if wrong := sorted(variant.options.keys() - card.options.keys()):
            checks.say("error", f"Variant '{name}' sets options that [options] of the card does not declare.", *wrong)
        if wrong := sorted(variant.dataset.keys() - known):
            checks.say("error", f"Variant '{name}' has recipe keys for datasets that are not registered.", *wrong)
    for what in ("licence", "paper"):
        if not getattr(card, what):
            checks.say("warning", f"The card has no {what}. Add the key '{what}'.")


def _options(checks: _Checks, module: nn.Module) -> None:
    try:
        checks.build(**{UNKNOWN_OPTION: 1})
    except HarnessError as error:
        checks.demand(UNKNOWN_OPTION in str(error), "The error message about an unknown option does not name it.")
    else:
        checks.say("error", f"The unknown option '{UNKNOWN_OPTION}' is accepted; build must refuse it.")


def _same_seed(checks: _Checks, module: nn.Module) -> None:
    again = checks.build().state_dict()
    first = module.state_dict()
    checks.demand(first.keys() == again.keys(), "Two builds have parameters with different names.")
    different = [name for name, value in first.items() if not torch.equal(value, again.get(name, value + 1))]
    checks.demand(
        not different,
        f"Two builds with the same torch seed have different weights in {len(different)} tensors. Initialise weights "
        "with torch's generator only.",
        *different,
    )


def _training(checks: _Checks, module: nn.Module) -> None:
    module.train()
    if not checks.entry.card.trainable:
        try:
            module(checks.images, checks.cameras)
        except HarnessError:
            return
        checks.say("error", "The card says trainable = false, but the module returns an output in training mode.")
        return
    output = module(checks.images, checks.cameras)
    logits, features = list(output.logits), list(output.features)
    for name, values in (("logits", logits), ("features", features)):
        checks.demand(bool(values), f"The training output has no branch: its list of {name} is empty.")
    for name, values, width in (("logits", logits, CLASSES), ("features", features, None)):
        for branch, value in enumerate(values):
            shape = tuple(value.shape)
            fits = len(shape) == 2 and shape[0] == BATCH and (width is None or shape[1] == width)
            wanted = f"[{BATCH}, {width or 'D'}]"
            checks.demand(fits, f"Training {name} of branch {branch} have the shape {list(shape)}, expected {wanted}.")
            checks.demand(bool(torch.isfinite(value).all()), f"Training {name} of branch {branch} are not finite.")
    loss = sum(nn.functional.cross_entropy(v, torch.arange(BATCH) % CLASSES) for v in logits)
    loss = loss + sum(v.float().pow(2).mean() for v in features)
    assert isinstance(loss, Tensor)
    loss.backward()
    idle = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        checks.say("warning", f"{len(idle)} parameters get no gradient from the logits and features.", *idle)
    module.zero_grad(set_to_none=True)


@torch.no_grad()
def _evaluation(checks: _Checks, module: nn.Module) -> None:
    module.eval()
    feature = module(checks.images, checks.cameras)
    if not isinstance(feature, Tensor):
        checks.say("error", f"In evaluation mode the output must be a tensor, found {type(feature).__name__}.")
        return
    card, entry = checks.entry.card, checks.entry
    width = feature_dim(module, card.feature_dim)
    checks.demand(
        tuple(feature.shape) == (BATCH, width),
        f"The feature has the shape {list(feature.shape)}, expected [{BATCH}, {width}] (batch, feature_dim).",
    )
    if not entry.variant:
        checks.demand(
            width == card.feature_dim,
            f"The card says feature_dim = {card.feature_dim}, but feature_dim of the module is {width}.",
        )
    checks.demand(bool(torch.isfinite(feature).all()), "The feature contains NaN or infinity.")
    checks.demand(not feature.requires_grad, "In evaluation mode the feature requires a gradient, even under no_grad.")
    again = module(checks.images, checks.cameras)
    checks.demand(
        torch.equal(feature, again), "In evaluation mode the same images give different features in two calls."
    )
    alone = torch.cat([module(checks.images[i : i + 1], checks.cameras[i : i + 1]) for i in range(BATCH)])
    change = float(((alone - feature).norm(dim=1) / feature.norm(dim=1).clamp_min(1e-12)).max())
    checks.demand(
        change < TOLERANCE,
        f"The feature of an image depends on the other images of its batch: the relative change is {change:.2g}, at "
        f"most {TOLERANCE:g} is allowed.",
    )
    other = module(checks.images.flip(0), checks.cameras)
    checks.demand(not torch.equal(feature, other), "The feature does not depend on the image.")


@torch.no_grad()
def _side_information(checks: _Checks, module: nn.Module) -> None:
    module.eval()
    stated = "camera" in checks.entry.card.side_information
    first = module(checks.images, torch.zeros(BATCH, dtype=torch.long))
    second = module(checks.images, torch.full((BATCH,), CAMERAS - 1))
    used = not torch.equal(first, second)
    switched_off = checks.entry.options().get("camera_embedding") is False
    if used and not stated:
        checks.say("error", 'The feature depends on the camera. Add side_information = ["camera"] to the card.')
    if stated and not used and not switched_off:
        checks.say("error", "The card's side_information contains 'camera', but the feature does not depend on it.")
    if not used:
        return
    if not set_camera_mode(module, "mean"):
        checks.say(
            "warning",
            "The module embeds cameras but has no attribute `camera_mode`, so it cannot be scored on unknown cameras.",
        )
        return
    try:
        unknown = module(checks.images, torch.full((BATCH,), CAMERAS + 7))
        checks.demand(
            bool(torch.isfinite(unknown).all()), "The feature for an unknown camera contains NaN or infinity."
        )
    finally:
        set_camera_mode(module, "on", since="mean")


def _published(checks: _Checks, module: nn.Module) -> None:
    load = published_loader(module)
    if load is None:
        checks.say("warning", "The module has no load_published, so it cannot load checkpoints of the original code.")
        return
    try:
        load({"no.such.parameter": torch.zeros(1)})
    except HarnessError:
        return
    except Exception as error:
        checks.say(
            "error",
            "load_published must raise a WeightsError for a checkpoint of another model, found "
            f"{type(error).__name__}: {str(error).rstrip('.')}.",
        )
        return
    checks.say("error", "load_published accepts a checkpoint that shares no key with the model; it must be strict.")


def _decay(checks: _Checks, module: nn.Module) -> None:
    unknown = sorted(no_weight_decay(module) - {name for name, _ in module.named_parameters()})
    checks.demand(not unknown, f"no_weight_decay names {len(unknown)} parameters that do not exist.", *unknown)


STEPS: dict[str, Callable[[_Checks, nn.Module], None]] = {
    "An unknown option": _options,
    "Building with the same seed": _same_seed,
    "Evaluation": _evaluation,
    "Training": _training,
    "Side information": _side_information,
    "Loading published weights": _published,
    "Weight decay": _decay,
}


def _parameters(checks: _Checks) -> None:
    """Checks every parameter count of the card with its own build."""
    for row in checks.entry.card.parameters:
        if checks.entry.card.adapter:
            continue
        plain = registry.BackboneEntry(checks.entry.card, checks.entry.folder, checks.entry.package)
        build_row = partial(
            plain.build,
            num_classes=row.num_classes,
            num_cameras=row.num_cameras,
            image_size=row.image_size,
            **row.options,
        )
        try:
            with torch.device("meta"):  # shapes without values, in a tenth of the time
                module = build_row()
        except Exception:  # the code of the backbone needs values
            module = build_row()
        count = sum(parameter.numel() for parameter in module.parameters())
        build = f"{row.num_classes} classes, {row.num_cameras} cameras, {row.image_size}, {row.options}"
        checks.demand(
            count == row.count, f"The card says {row.count:,} parameters, but the model has {count:,} ({build})."
        )
