"""ReIDMamba (Gu et al. 2025, arXiv 2511.07948): a MambaR trunk and branches of several granularities.

    images -> patches with class tokens distributed between them -> shared Mamba blocks
           -> one branch each for 12, 6 and 3 class tokens: two own blocks, norm, reduction neck, norm -> feature
           -> BN neck -> logits

The triplet and RATR losses use the feature before the BN neck; the ranking uses the same feature, normalised.
It is implemented from the formulas; `tests/backbones/test_reidmamba.py` compares it with values of the original code.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import lecun_normal_
from torch import Tensor, nn

from backbones.layers import BNNeck, DropPath, PatchEmbedding, camera_parameter, camera_term, stride_of
from backbones.reidmamba.mixer import Block, RMSNorm, drop_path_rates
from backbones.reidmamba.pretrained import start_from_mambar
from backbones.reidmamba.tokens import GeneralizedMean, class_tokens_of, fuse, gather, spread
from backbones.selective_scan import implementation_for
from harness import weights
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError, unknown

BRANCH_BLOCKS = 2
"""Number of blocks at the end that each branch has separately."""

FUSIONS = ("max", "mean", "gem")


@dataclass(frozen=True)
class Width:
    """Size of a trunk: token width, blocks (those of one branch included), state of a channel."""

    dim: int
    depth: int
    state: int


WIDTHS = {
    "small": Width(dim=384, depth=24, state=16),  # MambaR-Small
    "base": Width(dim=768, depth=24, state=16),  # MambaR-Base
    "tiny": Width(dim=64, depth=4, state=8),  # for small images on a CPU; not MambaR-Tiny, no published weights
}


class ReIDMamba(nn.Module):
    """ReIDMamba, with the state-dict names of the original code.

    Args:
        num_classes: Number of identities of the training split.
        num_cameras: Number of cameras of the training split.
        image_size: (height, width) in pixels.
        width: Key of `WIDTHS`.
        patch_size: Side of a patch; 16 in all published weights.
        stride: Step between patches; below `patch_size` they overlap (`stride_size`).
        class_tokens: Number of class tokens of the finest branch, k (`num_cls_tokens`).
        branches: Number of branches of the multi-granularity feature extractor (MGFE); branch b has k / 2^b tokens.
            One branch is the paper's Mamba strong baseline.
        fusion: How neighbouring tokens are fused: "max", "mean" or "gem" (`token_fusion_type`).
        neck_reduction: The finest branch keeps 1 / `neck_reduction` of each token (`cls_reduce`).
        drop_path: Rate of stochastic depth at the last block.
        camera_embedding: Whether to embed the camera of each image (SIE, `use_cid`); also "on" or "off".

    Attributes:
        feature_dim: Width of the test-time feature.
        camera_mode: "on", "off" or "mean", see `backbones.layers.camera_term`.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_cameras: int,
        image_size: tuple[int, int],
        width: str = "small",
        patch_size: int = 16,
        stride: int = 16,
        class_tokens: int = 12,
        branches: int = 3,
        fusion: str = "max",
        neck_reduction: int = 4,
        drop_path: float = 0.3,
        camera_embedding: bool | str = True,
    ) -> None:
        super().__init__()
        size = _checked(width, class_tokens, branches, fusion, neck_reduction, drop_path)
        if camera_embedding not in (True, False, "on", "off"):
            raise unknown("value of camera_embedding", str(camera_embedding), ("on", "off"))
        dim, depth, trunk = size.dim, size.depth, size.depth - BRANCH_BLOCKS
        self.fusion, self.class_tokens = fusion, class_tokens
        self.patch_embed = PatchEmbedding(image_size, dim, patch_size=patch_size, stride=stride)
        self.cls_token = nn.Parameter(torch.zeros(1, class_tokens, dim))
        self.pos_embed_cls = nn.Parameter(torch.zeros(1, class_tokens, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches, dim))
        self.camera_mode = "on" if camera_embedding in (True, "on") else "off"
        self.sie_embed = camera_parameter(num_cameras, dim) if self.camera_mode == "on" else None
        blocks = [Block(dim, size.state, depth, rate) for rate in drop_path_rates(drop_path, depth)]
        self.layers = nn.ModuleList(blocks[:trunk])
        self.multi_layers = nn.ModuleList(copy.deepcopy(nn.ModuleList(blocks[trunk:])) for _ in range(branches))
        self.norm_fs = nn.ModuleList(RMSNorm(dim) for _ in range(branches))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        reduced = dim // neck_reduction
        self.necks = nn.ModuleList(_reduction(dim, reduced * 2**b) for b in range(branches))
        self.norm_necks = nn.ModuleList(RMSNorm(reduced * class_tokens) for _ in range(branches))
        self.bnnecks = nn.ModuleList(BNNeck(reduced * class_tokens, num_classes) for _ in range(branches))
        # For the layout of checkpoints, each coarser branch has two, of which only the first is used.
        gems = 2 * (branches - 1) if fusion == "gem" else 0
        self.gems = nn.ModuleList(GeneralizedMean() for _ in range(gems))
        self.feature_dim = branches * reduced * class_tokens
        self._initialise()

    def _initialise(self) -> None:
        for tensor in (self.cls_token, self.pos_embed_cls, self.pos_embed):
            nn.init.trunc_normal_(tensor, std=0.02)
        projection = self.patch_embed.proj
        lecun_normal_(projection.weight)
        assert projection.bias is not None
        nn.init.zeros_(projection.bias)

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> Tensor | TrainingOutput:
        """Maps images [B, 3, H, W] and cameras [B] to features.

        Returns:
            In evaluation mode the test-time feature [B, feature_dim]: the concatenated features of the branches, each
            of unit length. In training mode logits [B, num_classes] and features before the BN neck, one per branch.
        """
        features = self.extract(images, camera_ids)
        if not self.training:
            return torch.cat([F.normalize(feature) for feature in features], dim=1)
        logits = [neck(feature)[1] for neck, feature in zip(self.bnnecks, features, strict=True)]
        return TrainingOutput(logits=logits, features=features)

    def extract(self, images: Tensor, camera_ids: Tensor | None = None) -> list[Tensor]:
        """Returns the feature of every branch before its BN neck, each [B, D / neck_reduction * class_tokens]."""
        hidden = self._embed(images, camera_ids)
        residual: Tensor | None = None
        for block in self.layers:
            hidden, residual = block(hidden, residual)
        assert residual is not None
        return [self._branch(b, hidden, residual) for b in range(len(self.multi_layers))]

    def _embed(self, images: Tensor, camera_ids: Tensor | None) -> Tensor:
        """Returns the sequence of patches and class tokens, [B, n + k, D], all with the camera embedding added."""
        patches = self.patch_embed(images) + self.pos_embed
        tokens = (self.cls_token + self.pos_embed_cls).expand(images.shape[0], -1, -1)
        return spread(patches, tokens) + camera_term(self.sie_embed, camera_ids, self.camera_mode)

    def _branch(self, b: int, hidden: Tensor, residual: Tensor | None) -> Tensor:
        """Computes branch b of MGFE: fused class tokens, blocks, norm and reduction."""
        blocks, num_tokens = self.multi_layers[b], self.class_tokens // 2**b
        assert isinstance(blocks, nn.ModuleList) and isinstance(blocks[0], Block)
        if b > 0:
            # Coarser branches fuse the sum of both streams. Drop path is applied here, not in their first block.
            assert residual is not None
            patches, tokens = gather(residual + blocks[0].drop_path(hidden), self.class_tokens)
            gem = self.gems[2 * (b - 1)] if self.fusion == "gem" else None
            hidden, residual = spread(patches, fuse(tokens, 2**b, self.fusion, gem)), None
        for block in blocks:
            hidden, residual = block(hidden, residual)
        # Only the class tokens are used from here on, and the norm acts per token, so patches need no norm.
        tokens = self.norm_fs[b](class_tokens_of(residual + self.drop_path(hidden), num_tokens))
        return self.norm_necks[b](self.necks[b](tokens).flatten(1))

    def extra_flops(self) -> int:
        """FLOPs per image that torch's counter misses: the scans and the convolutions before them.

        Per token and direction, with E channels of N states: 7 E N for the recurrence (delta A, its exponential, decay
        times state, times B, the sum, times C, and the sum over states), 3 E for delta u and D u, and 2 E W for a
        convolution with W taps. A multiply-add counts as two, an exponential as one. Softplus, SiLU and the gate count
        as zero, like activations of all backbones. With plain PyTorch, the counter includes the convolution and the
        product with C.
        """
        plain, patches = self.scan_implementation() == "torch", self.patch_embed.num_patches
        total = sum(_hidden_flops(block, patches + self.class_tokens, plain) for block in self.layers)
        for b, blocks in enumerate(self.multi_layers):
            assert isinstance(blocks, nn.ModuleList)
            total += sum(_hidden_flops(block, patches + self.class_tokens // 2**b, plain) for block in blocks)
        return total

    def scan_implementation(self) -> str:
        """Name of the selective-scan implementation on the device of this module."""
        return implementation_for(self.pos_embed.device, self.pos_embed.dtype)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay in the original code: embeddings, state-space parameters and vectors."""
        named = {"pos_embed", "cls_token", "pos_embed_cls", "sie_embed"}
        state_space = (".A_log", ".A_b_log")
        return {n for n, p in self.named_parameters() if n in named or n.endswith(state_space) or p.ndim <= 1}

    def load_published(self, state_dict: Mapping[str, object]) -> None:
        """Loads a checkpoint of the original code or of this harness; all keys and shapes must fit.

        In evaluation mode, classifiers for other identities are ignored, so that the checkpoint can be scored.

        Args:
            state_dict: A state dict, or a checkpoint with it under `model` (the original engine) or `model_state_dict`
                (its Ray Tune trainer); the prefix `module.` of parallel training is removed.

        Raises:
            WeightsError: Keys are missing, unexpected or have another shape; names the first ones.
        """
        spare = () if self.training else ("bnnecks.*.cls.weight",)
        weights.strict_load(self, weights.unwrap(state_dict), optional=spare)


def _hidden_flops(block: nn.Module, tokens: int, plain: bool) -> int:
    assert isinstance(block, Block)
    return tokens * block.mixer.hidden_flops(plain)


def _reduction(dim: int, reduced: int) -> nn.Linear:
    """Reduction neck of a branch, applied to each class token separately."""
    neck = nn.Linear(dim, reduced, bias=False)
    nn.init.trunc_normal_(neck.weight, std=0.02)
    return neck


def _checked(width: str, class_tokens: int, branches: int, fusion: str, neck_reduction: int, rate: float) -> Width:
    """Checks the options and returns the size of the trunk.

    Raises:
        UsageError: an option does not fit.
    """
    if width not in WIDTHS:
        raise unknown("width of reidmamba", width, WIDTHS)
    if fusion not in FUSIONS:
        raise unknown("fusion of reidmamba", fusion, FUSIONS)
    if branches < 1 or class_tokens < 1 or class_tokens % 2 ** (branches - 1):
        raise UsageError(
            f"reidmamba: {branches} branches halve the class tokens {branches - 1} times, so class_tokens must be a "
            f"multiple of {2 ** max(branches - 1, 0)}, found {class_tokens}."
        )
    if neck_reduction < 1 or WIDTHS[width].dim % neck_reduction:
        raise UsageError(f"reidmamba: neck_reduction must divide {WIDTHS[width].dim}, found {neck_reduction}.")
    if not 0 <= rate < 1:
        raise UsageError(f"reidmamba: drop_path must be from 0 to below 1, found {rate}.")
    return WIDTHS[width]


def build(
    *,
    num_classes: int,
    num_cameras: int,
    image_size: tuple[int, int],
    pretrained: str | os.PathLike[str] | None = None,
    **options: object,
) -> ReIDMamba:
    """Builds the model.

    Args:
        num_classes: Number of identities of the training split.
        num_cameras: Number of cameras of the training split.
        image_size: (height, width) in pixels.
        pretrained: Path of the ImageNet weights of MambaR; `None` for a random start.
        **options: See `ReIDMamba`; the card has their defaults.

    Raises:
        UsageError: An option does not fit.
        WeightsError: The file does not contain MambaR weights of this width.
    """
    model = ReIDMamba(num_classes=num_classes, num_cameras=num_cameras, image_size=image_size, **options)  # type: ignore[arg-type]
    if pretrained is not None:
        start_from_mambar(model, pretrained, model.patch_embed.grid, len(model.layers))
    return model


def infer(state_dict: Mapping[str, object], image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns the arguments of `build` that fit a checkpoint.

    A checkpoint does not show max or mean fusion, so the options contain `fusion` only for "gem".

    Args:
        state_dict: A checkpoint of the original code or of this harness.
        image_size: (height, width) of its training; determines the stride, together with the number of patches.

    Returns:
        `num_classes`, `num_cameras` and `options` for `build`.

    Raises:
        WeightsError: It is not a ReIDMamba checkpoint, or no stride gives its number of patches.
    """
    state = weights.unwrap(state_dict)
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "norm_fs.0.weight", "necks.0.weight")
    if missing := [key for key in needed if key not in state]:
        raise WeightsError(f"This is no ReIDMamba checkpoint: it lacks {', '.join(missing)}.")
    dim, _, patch_size, _ = state["patch_embed.proj.weight"].shape
    if (width := next((name for name, size in WIDTHS.items() if size.dim == dim), None)) is None:
        known = ", ".join(f"{name} ({size.dim})" for name, size in WIDTHS.items())
        raise WeightsError(f"This ReIDMamba checkpoint has tokens of {dim} numbers; known widths: {known}.")
    classifier, cameras = state.get("bnnecks.0.cls.weight"), state.get("sie_embed")
    options = {
        "width": width,
        "patch_size": patch_size,
        "stride": stride_of(state["pos_embed"].shape[1], image_size, patch_size),
        "class_tokens": state["cls_token"].shape[1],
        "branches": sum(key.startswith("norm_fs.") for key in state),
        "neck_reduction": dim // len(state["necks.0.weight"]),
        "camera_embedding": cameras is not None,
    }
    return {
        "num_classes": 1 if classifier is None else len(classifier),
        "num_cameras": 0 if cameras is None else len(cameras),
        "options": options | ({"fusion": "gem"} if "gems.0.p" in state else {}),
    }
