"""The jigsaw patch module (JPM) as a table of indices: the patches of each local part, in order."""

from __future__ import annotations

from harness.errors import UsageError

PARTS = 4
SHIFT = 5
GROUPS = 2


def jigsaw(num_patches: int, *, shift: int = SHIFT, groups: int = GROUPS, parts: int = PARTS) -> list[list[int]]:
    """Returns the patch indices of each part, `parts` lists of `num_patches // parts`.

    Published weights depend on three details that are not in the paper (TransReID, model/make_model.py:11-25, 317):

    - The sequence is rotated by `shift - 1` patches, because the slice includes the class token.
    - A sequence of odd length is extended by its second-to-last element.
    - Patches that do not fill a part are left out.

    Args:
        num_patches: number of patches of an image, row by row.
        shift: the setting `SHIFT_NUM` of the original code, one more than the rotation.
        groups: number of pieces of the sequence, which are interleaved (`SHUFFLE_GROUP`).
        parts: number of local parts (`DEVIDE_LENGTH`).

    Raises:
        UsageError: there are fewer patches than parts.
    """
    if num_patches < parts:
        raise UsageError(
            f"JPM cuts the patches into {parts} parts, but the image has only {num_patches}; "
            "choose a larger image, a smaller stride or patch_size, or jpm=false."
        )
    rotation = min(shift - 1, num_patches)
    sequence = [*range(rotation, num_patches), *range(rotation)]
    if num_patches % groups:
        sequence.append(sequence[-2])
    length = len(sequence) // groups
    shuffled = [sequence[(k % groups) * length + k // groups] for k in range(groups * length)]
    size = num_patches // parts
    return [shuffled[part * size : (part + 1) * size] for part in range(parts)]
