"""Initialises ReIDMamba from ImageNet weights of MambaR (arXiv 2405.14858)."""

from __future__ import annotations

import os

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.reidmamba.tokens import positions
from harness import weights
from harness.errors import WeightsError

MAMBAR_TOKENS = 12
MAMBAR_GRID = (14, 14)
MAMBAR_HEAD = ("neck.weight", "norm_neck.weight", "head.weight", "head.bias")
"""Parameters of MambaR's classifier, which ReIDMamba does not use."""

FROM_SCRATCH = ("sie_embed", "necks.*", "norm_necks.*", "bnnecks.*", "gems.*")
"""Parameters that MambaR does not have."""


def start_from_mambar(model: nn.Module, path: str | os.PathLike[str], grid: tuple[int, int], trunk: int) -> None:
    """Initialises a ReIDMamba from the ImageNet weights of MambaR.

    The patch projection and the trunk are copied; the last two blocks and the final norm go to every branch. Position
    embeddings are interpolated to the new grid. New class tokens get the nearest class tokens of MambaR.

    Args:
        model: The module to initialise.
        path: The file with the weights.
        grid: Rows and columns of patches.
        trunk: Number of blocks that all branches share.

    Raises:
        WeightsError: The file does not contain MambaR weights of this width.
    """
    state = weights.load_state(path)
    random = model.state_dict()
    dim = random["pos_embed"].shape[-1]
    tokens = {"cls_token": (1, MAMBAR_TOKENS, dim), "pos_embed_cls": (1, MAMBAR_TOKENS, dim)}
    for key, shape in {**tokens, "pos_embed": (1, MAMBAR_GRID[0] * MAMBAR_GRID[1], dim)}.items():
        if key not in state or tuple(state[key].shape) != shape:
            found = f"of shape {tuple(state[key].shape)}" if key in state else "absent"
            raise WeightsError(
                f"{path} does not hold the MambaR weights of this width: '{key}' is {found}, expected shape {shape}."
            )
    source = {name: _mambar_name(name, trunk) for name in random}
    start = {name: state[key] for name, key in source.items() if key in state}
    start |= {key: v for key, v in state.items() if key not in (*source.values(), *tokens, "pos_embed")}
    start["pos_embed"] = resample_positions(state["pos_embed"], grid)
    chosen, place = token_map(grid[0] * grid[1], random["cls_token"].shape[1])
    for key in tokens:
        start[key] = random[key].clone()
        start[key][:, place] = state[key][:, chosen]
    weights.strict_load(model, start, ignore=MAMBAR_HEAD, optional=FROM_SCRATCH)


def _mambar_name(name: str, trunk: int) -> str:
    """Returns MambaR's name of a tensor of ReIDMamba, empty if there is none; all branches use the same tensors."""
    group, _, rest = name.partition(".")
    if group == "multi_layers":
        _, block, leaf = rest.split(".", 2)
        return f"layers.{trunk + int(block)}.{leaf}"
    if group == "norm_fs":
        return "norm_f.weight"
    return name if group in ("layers", "patch_embed") else ""


def resample_positions(pos_embed: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resamples MambaR's position embeddings [1, 196, D] to [1, rows * columns, D]: bicubic, with antialiasing."""
    if grid == MAMBAR_GRID:
        return pos_embed
    image = pos_embed.float().transpose(1, 2).unflatten(2, MAMBAR_GRID)
    return F.interpolate(image, size=grid, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)


def token_map(num_patches: int, num_tokens: int) -> tuple[list[int], list[int]]:
    """Assigns MambaR's 12 class tokens to the k new ones.

    For k up to 12, each new token in turn gets the nearest unused old token, by position between the patches. For
    larger k, the old tokens initialise the middle ones and the others stay random; k - 12 must be even.

    Returns:
        Indices of the old tokens, and indices of the new tokens that they initialise; lists of equal length.

    Raises:
        WeightsError: k - 12 is positive and odd.
    """
    if num_tokens > MAMBAR_TOKENS:
        extra, odd = divmod(num_tokens - MAMBAR_TOKENS, 2)
        if odd:
            raise WeightsError(
                f"{num_tokens} class tokens cannot start from the {MAMBAR_TOKENS} of MambaR: the difference must be "
                "even; choose another class_tokens or a random start."
            )
        return list(range(MAMBAR_TOKENS)), list(range(extra, extra + MAMBAR_TOKENS))
    free = _places(num_patches, MAMBAR_TOKENS)
    chosen = []
    for place in _places(num_patches, num_tokens).values():
        old = min(free, key=lambda token: abs(free[token] - place))
        chosen.append(old)
        del free[old]
    return chosen, list(range(num_tokens))


def _places(num_patches: int, num_tokens: int) -> dict[int, int]:
    """Returns the number of patches before each class token."""
    return {j: position - j for j, position in enumerate(positions(num_patches, num_tokens))}
