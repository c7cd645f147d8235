"""Initialises the image encoder from CLIP's weights, in OpenAI's or timm's layout."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from backbones.clip_reid.vit import ImageEncoder
from backbones.transreid.imagenet import resize_positions
from harness.weights import load_state, strict_load

VISUAL = "visual."
"""Prefix of the image encoder in OpenAI's file, which also has the text encoder."""

TIMM_NAMES = (
    ("patch_embed.proj.", "conv1."),
    ("norm_pre.", "ln_pre."),
    ("norm.", "ln_post."),
    ("blocks.", "transformer.resblocks."),
    (".attn.qkv.", ".attn.in_proj_"),
    (".attn.proj.", ".attn.out_proj."),
    (".norm1.", ".ln_1."),
    (".norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)
"""Parts of timm's names and what CLIP calls them; a part without a leading dot stands at the start."""


def load_start(encoder: ImageEncoder, path: str | Path) -> None:
    """Loads the image encoder, and resizes its positions to the grid of the images.

    Args:
        encoder: the image encoder; it stays unchanged if an error is raised.
        path: OpenAI's `ViT-B-16.pt`, or the safetensors file that timm offers.

    Raises:
        WeightsError: the file does not fit.
    """
    weights = read(path)
    if (positions := weights.get("positional_embedding")) is not None and positions.dim() == 2:
        weights["positional_embedding"] = resize_positions(positions.float()[None], encoder.grid)[0]
    strict_load(encoder, weights)


def read(path: str | Path) -> dict[str, Tensor]:
    """Reads the image encoder of a file, under OpenAI's names without `visual.`."""
    state = load_state(path)
    if "cls_token" in state:
        return _from_timm(state)
    visual = {key.removeprefix(VISUAL): value for key, value in state.items() if key.startswith(VISUAL)}
    return visual or state


def _from_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames timm's entries. timm's head is the projection; CLIP's projection has no bias, so it is zero there."""
    renamed = {}
    for key, value in state.items():
        if key == "cls_token":
            renamed["class_embedding"] = value.flatten()
        elif key == "pos_embed":
            renamed["positional_embedding"] = value.flatten(0, 1)
        elif key == "head.weight":
            renamed["proj"] = value.T
        elif key != "head.bias":
            for part, own in TIMM_NAMES:
                key = key.replace(part, own) if part.startswith(".") or key.startswith(part) else key
            renamed[key] = value
    return renamed
