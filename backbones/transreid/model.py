"""TransReID (He et al. 2021): ViT with overlapping patches, camera embedding, jigsaw patches and BN necks.

The state dict has the names of the published checkpoints, so these and our own are loaded in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.layers import identity_classifier, neck_norm, stride_of
from backbones.transreid import imagenet
from backbones.transreid.jpm import PARTS, jigsaw
from backbones.transreid.vit import WIDTHS, VisionTransformer, initialise, norm_layer, transformer_block
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from harness.weights import strict_load, unwrap

DEAD_WITH_JPM = ("base.fc.*", "base.blocks.11.*", "base.norm.*")
"""Entries of published files that no forward pass uses: the ImageNet head, and the originals of JPM's copies."""

DEAD_WITHOUT_JPM = ("base.fc.*",)


class TransReID(nn.Module):
    """TransReID, or its ViT baseline if `jpm` and `camera_embedding` are off.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split.
        image_size: (height, width) in pixels.
        stride: step between patches.
        jpm: whether to add four local branches on jigsaw patches to the global one.
        camera_embedding: whether to add the camera embedding to every token; also "on" or "off".
        neck_feature: whether the test-time feature is the one `before` or `after` the BN neck.
        drop_path: stochastic depth of the last block.
        width: `base` (ViT-B) or `tiny` (demonstrations).
        patch_size: side of a patch.
    """

    patch_order: Tensor

    def __init__(
        self,
        num_classes: int,
        num_cameras: int,
        image_size: tuple[int, int],
        *,
        stride: int = 16,
        jpm: bool = True,
        camera_embedding: bool | str = True,
        neck_feature: str = "before",
        drop_path: float = 0.1,
        width: str = "base",
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        if neck_feature not in ("before", "after"):
            raise UsageError(f"transreid.neck_feature must be 'before' or 'after', found '{neck_feature}'.")
        self.jpm, self.neck_feature = jpm, neck_feature
        self.base = VisionTransformer(
            image_size,
            width=width,
            patch_size=patch_size,
            stride=stride,
            num_cameras=num_cameras if camera_embedding in (True, "on") else 0,
            drop_path=drop_path,
            leave_out=int(jpm),
        )
        dim = self.base.dim
        if jpm:
            self.b1 = _tail(self.base, drop_path)
            self.b2 = _tail(self.base, drop_path)
            order = torch.tensor(jigsaw(self.base.patch_embed.num_patches))
            self.register_buffer("patch_order", order + 1, persistent=False)  # token 0 is the class token
        self.branches = ["", *(f"_{part}" for part in range(1, PARTS + 1))] if jpm else [""]
        for suffix in self.branches:
            self.add_module(f"bottleneck{suffix}", neck_norm(dim))
            self.add_module(f"classifier{suffix}", identity_classifier(dim, num_classes))
        self.feature_dim = dim * len(self.branches)

    def no_weight_decay(self) -> set[str]:
        """Embeddings, without weight decay under recipes with `no_decay = "model"`; the original code decays them."""
        names = {"base.cls_token", "base.pos_embed", "base.sie_embed"}
        return names & {name for name, _ in self.named_parameters()}

    def branch_features(self, images: Tensor, camera_ids: Tensor | None) -> list[Tensor]:
        """Returns the features before the necks, each [B, dim]: first the global one, then the local ones."""
        tokens = self.base(images, camera_ids)
        if not self.jpm:
            return [tokens[:, 0]]
        batch, _, dim = tokens.shape
        parts, size = self.patch_order.shape
        # The local parts share one block, which processes them as one batch of B * parts short sequences.
        local = tokens[:, self.patch_order.flatten()].view(batch, parts, size, dim)
        class_token = tokens[:, None, :1].expand(-1, parts, -1, -1)
        local = torch.cat([class_token, local], dim=2).flatten(0, 1)
        return [self.b1(tokens)[:, 0], *self.b2(local)[:, 0].view(batch, parts, dim).unbind(1)]

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput | Tensor:
        """Maps images [B, 3, H, W] and cameras [B] to logits and features, or to the test-time feature.

        Local features are divided by their number at test time, as in the original code (make_model.py:365-371).
        """
        features = self.branch_features(images, camera_ids)
        if not self.training and self.neck_feature == "before":
            return _joined(features)
        necks = [self.get_submodule(f"bottleneck{suffix}") for suffix in self.branches]
        normalised = [neck(feature) for neck, feature in zip(necks, features, strict=True)]
        if not self.training:
            return _joined(normalised)
        classifiers = [self.get_submodule(f"classifier{suffix}") for suffix in self.branches]
        return TrainingOutput([c(n) for c, n in zip(classifiers, normalised, strict=True)], features)

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a checkpoint of the original code or of this harness, strictly.

        In evaluation mode, a classifier for other identities is ignored, so that the checkpoint can be scored.

        Raises:
            WeightsError: the file does not fit; the message names the keys.
        """
        strict_load(
            self,
            unwrap(state_dict),
            ignore=DEAD_WITH_JPM if self.jpm else DEAD_WITHOUT_JPM,
            optional=() if self.training else ("classifier*",),
        )

    def load_imagenet(self, path: str | Path) -> None:
        """Loads ImageNet weights into the transformer; camera embedding, necks and classifiers stay random."""
        weights = imagenet.read(path)
        if "pos_embed" in weights:
            weights["pos_embed"] = imagenet.resize_positions(weights["pos_embed"], self.base.patch_embed.grid)
        renamed = imagenet.under_own_names(weights, last=len(self.base.blocks), jpm=self.jpm)
        strict_load(self, renamed, optional=("base.sie_embed", "bottleneck*", "classifier*"))


def _tail(base: VisionTransformer, drop_path: float) -> nn.Sequential:
    """A copy of the last block and the final norm; each branch of JPM has its own."""
    return nn.Sequential(transformer_block(base.dim, base.heads, drop_path), norm_layer(base.dim)).apply(initialise)


def _joined(features: list[Tensor]) -> Tensor:
    first, *local = features
    return torch.cat([first, *(feature / len(local) for feature in local)], dim=1)


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | Path | None = None,
    start: str = "",
    **options: Any,
) -> TransReID:
    """Builds TransReID; see the class for options.

    Args:
        num_classes: number of identities of the training split.
        num_cameras: number of cameras of the training split.
        image_size: (height, width) in pixels.
        pretrained: path of ImageNet weights; `None` for a random start.
        start: name of the ImageNet weights, from which the file name is derived; the network does not depend on it.
        **options: options of `TransReID`.
    """
    module = TransReID(num_classes, num_cameras, image_size, **options)
    if pretrained is not None:
        module.load_imagenet(pretrained)
    return module


def infer(state_dict: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns the arguments of `build` that fit a checkpoint.

    Args:
        state_dict: a checkpoint of the original code or of this harness.
        image_size: (height, width) of its training; determines the stride, together with the number of patches.

    Returns:
        `num_classes`, `num_cameras` and `options` for `build`.

    Raises:
        WeightsError: it is not a TransReID checkpoint, or no stride gives its number of patches.
    """
    state = unwrap(state_dict)
    needed = ("base.pos_embed", "base.patch_embed.proj.weight")
    if missing := [key for key in needed if key not in state]:
        raise WeightsError(f"This is no TransReID checkpoint: it lacks {', '.join(missing)}.")
    dim, _, patch_size, _ = state["base.patch_embed.proj.weight"].shape
    width = next((name for name, (known, _, _) in WIDTHS.items() if known == dim), None)
    if width is None:
        raise WeightsError(f"This TransReID checkpoint has tokens of {dim} numbers; known widths: {_known_widths()}.")
    cameras = state.get("base.sie_embed")
    classifier = state.get("classifier.weight")
    return {
        "num_classes": 1 if classifier is None else len(classifier),
        "num_cameras": 0 if cameras is None else len(cameras),
        "options": {
            "stride": stride_of(state["base.pos_embed"].shape[1] - 1, image_size, patch_size),
            "jpm": any(key.startswith("b1.") for key in state),
            "camera_embedding": cameras is not None,
            "width": width,
            "patch_size": patch_size,
        },
    }


def _known_widths() -> str:
    return ", ".join(f"{name} ({dim})" for name, (dim, _, _) in WIDTHS.items())
