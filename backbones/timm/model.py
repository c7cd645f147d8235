"""Adapter for timm models: pooled features, a BN neck, and the input settings of the pretrained configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import timm
import torch
from timm.models import _builder
from torch import Tensor, nn

from backbones.layers import identity_classifier, neck_norm
from harness.cards import InputCard
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError, suggestion
from harness.weights import load_state, strict_load, unwrap


def configuration(model: str) -> Any:
    """Returns timm's pretrained configuration of a model, given with or without tag.

    Raises:
        UsageError: no such model or tag; names timm's new name of a renamed model, or suggests the nearest.
    """
    name, _, tag = model.partition(".")
    renamed = timm.models.get_deprecated_models()
    if name in renamed:
        now = f"is now called '{renamed[name]}'; use timm:{renamed[name]}" if renamed[name] else "was removed"
        raise UsageError(f"timm model '{name}' {now}.")
    if not timm.is_model(name):
        nearest = suggestion(name.lower().rpartition("/")[2], timm.list_models())
        raise UsageError(f"Unknown timm model '{model}'.{nearest} timm.list_models() in Python lists them.")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(name)]
    if tag and tag not in tags:
        raise UsageError(
            f"timm model '{name}' has no weights tagged '{tag}'.{suggestion(tag, tags)} "
            f"Known tags: {', '.join(tags) or 'none'}."
        )
    return timm.get_pretrained_cfg(model)


def input_card(model: str) -> InputCard:
    """Returns input size and normalisation the model was pretrained with.

    Raises:
        UsageError: no such model.
    """
    config = configuration(model)
    height, width = config.input_size[1:]
    return InputCard((height, width), tuple(config.mean), tuple(config.std))


def pooled(model: str, image_size: tuple[int, int], pretrained: str | Path | None) -> tuple[nn.Module, int]:
    """Builds a timm model without classifier, and runs it on one image as a check.

    Returns:
        The module and the width of its pooled feature.

    Raises:
        UsageError: the model does not support this image size or has no pooled feature; contains timm's reason.
        WeightsError: the file does not fit the model.
    """
    config = configuration(model)
    try:
        module = _create(model, image_size, num_classes=0)
        with torch.no_grad():
            feature = module.eval()(torch.zeros(1, 3, *image_size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise UsageError(
            f"timm model '{model}' cannot take images of {image_size[0]}x{image_size[1]}: {_reason(error)}. "
            f"It was pretrained at {'x'.join(map(str, config.input_size[1:]))}; choose another image size "
            "(--set augmentation.image_size) or another model."
        ) from error
    if feature.ndim != 2:
        raise UsageError(f"timm model '{model}' gives no pooled feature, but a tensor of shape {tuple(feature.shape)}.")
    if pretrained is not None:
        _load(module, model, image_size, pretrained)
    return module.train(), feature.shape[1]


def _load(module: nn.Module, model: str, image_size: tuple[int, int], path: str | Path) -> None:
    """Loads a file into a model without classifier, strictly; a classifier in the file is left out.

    timm converts known names and shapes of other projects, and resizes position embeddings. If it cannot convert a
    file, the file is loaded unchanged, so that the error names the keys of the file.
    """
    given = load_state(path)
    whole, rules = _with_classifier(model, image_size)
    state = _converted(given, rules.get("filter_fn"), whole)
    classifier = whole.state_dict().keys() - module.state_dict().keys()
    ignore = classifier if rules.get("strict", True) else ("*",)  # some files hold more than timm's model has
    try:
        strict_load(module, state, ignore=ignore)
    except WeightsError as error:
        raise WeightsError(f"{path} does not fit timm model '{model}': {error}") from error


def _with_classifier(model: str, image_size: tuple[int, int]) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the model with its classifier, and the arguments `filter_fn` (conversion) and `strict` of timm's loader.

    timm passes them only to its loader, so the loader is replaced while the model is built.
    """
    rules: dict[str, Any] = {}
    with mock.patch.object(_builder, "load_pretrained", lambda *_, **given: rules.update(given)):
        return _create(model, image_size, pretrained=True), rules


def _converted(state: dict[str, Tensor], convert: Any, module: nn.Module) -> dict[str, Tensor]:
    """Applies timm's conversion; returns the state unchanged if there is none or it fails."""
    if convert is None:
        return state
    extra = (module,) if len(inspect.signature(convert).parameters) > 1 else ()
    try:
        with torch.no_grad():
            return dict(convert(dict(state), *extra))
    except (RuntimeError, AssertionError, ValueError, TypeError, LookupError, AttributeError):
        return state


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".") or type(error).__name__


def _create(model: str, image_size: tuple[int, int], **settings: Any) -> nn.Module:
    """Passes the image size to the models that are built for one, such as transformers."""
    try:
        return timm.create_model(model, img_size=image_size, **settings)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(model, **settings)


class PooledModel(nn.Module):
    """A timm model with a BN neck; triplet on the pooled feature, classifier and test after the neck.

    Args:
        model: timm's name, with or without tag.
        num_classes: identities of the training split.
        image_size: (height, width) in pixels.
        pretrained: path of the model's weights, or `None`.
        neck_feature: test-time feature `before` or `after` the BN neck.
    """

    def __init__(
        self,
        model: str,
        num_classes: int,
        image_size: tuple[int, int],
        *,
        pretrained: str | Path | None = None,
        neck_feature: str = "after",
    ) -> None:
        super().__init__()
        if neck_feature not in ("before", "after"):
            raise UsageError(f"timm.neck_feature must be 'before' or 'after', found '{neck_feature}'.")
        self.neck_feature = neck_feature
        self.base, self.feature_dim = pooled(model, image_size, pretrained)
        self.bottleneck = neck_norm(self.feature_dim)
        self.classifier = identity_classifier(self.feature_dim, num_classes)

    def no_weight_decay(self) -> set[str]:
        """The names given by the timm model, without those of missing parameters."""
        named: Any = getattr(self.base, "no_weight_decay", set)
        return {f"base.{name}" for name in named()} & {name for name, _ in self.named_parameters()}

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] to logits and features, or to the test-time feature; cameras are not used."""
        features = self.base(images)
        if not self.training and self.neck_feature == "before":
            return features
        normalised = self.bottleneck(features)
        if not self.training:
            return normalised
        return TrainingOutput([self.classifier(normalised)], [features])

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a checkpoint of this harness, strictly; in evaluation mode, a classifier of other classes is ignored.

        Raises:
            WeightsError: the file does not fit; the message names the keys.
        """
        strict_load(self, unwrap(state_dict), optional=() if self.training else ("classifier*",))


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    model: str = "",
    **options: Any,
) -> PooledModel:
    """Builds the adapter around `model`; see `PooledModel`. Cameras are not used.

    Raises:
        UsageError: no such model, or it cannot take the image size.
    """
    if not model:
        raise UsageError("Name a timm model, for example timm:resnet50.a1_in1k.")
    height, width = image_size
    return PooledModel(model, num_classes, (height, width), pretrained=pretrained, **options)


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns the number of identities of a checkpoint; the user gives the model as `timm:<model>`."""
    classifier = unwrap(state_dict).get("classifier.weight")
    return {"num_classes": 1 if classifier is None else len(classifier), "num_cameras": 0, "options": {}}
