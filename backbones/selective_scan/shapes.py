"""The tensors of one scan, and the checks that turn a wrong shape into a clear sentence."""

from typing import NamedTuple

from torch import Tensor


class ScanInputs(NamedTuple):
    """The tensors of one scan direction, in sequence order (never flipped).

    Attributes:
        u: Input sequence, [B, D, L].
        delta: Step sizes before ``delta_bias`` and softplus, [B, D, L].
        A: State matrix, one diagonal a channel, [D, N].
        B: Input matrix, shared by all channels, [B, N, L].
        C: Output matrix, shared by all channels, [B, N, L].
        D: Skip connection, [D], or None.
        delta_bias: Added to ``delta``, [D], or None.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    delta_bias: Tensor | None = None


def check_scan(inputs: ScanInputs, z: Tensor | None) -> None:
    """Raises ValueError if the tensors of a scan do not fit together."""
    u, A = inputs.u, inputs.A
    if u.dim() != 3:
        raise ValueError(f"selective_scan: u must be [B, D, L], found the shape {tuple(u.shape)}.")
    if A.dim() != 2:
        raise ValueError(f"selective_scan: A must be [D, N], found the shape {tuple(A.shape)}.")
    batch, channels, length = u.shape
    states = A.shape[1]
    if length == 0 or states == 0:
        raise ValueError("selective_scan: the sequence needs at least one step, the state at least one entry.")
    expected = {
        "delta": (batch, channels, length),
        "A": (channels, states),
        "B": (batch, states, length),
        "C": (batch, states, length),
        "D": (channels,),
        "delta_bias": (channels,),
    }
    _check("selective_scan", u, {name: (getattr(inputs, name), shape) for name, shape in expected.items()})
    _check("selective_scan", u, {"z": (z, (batch, channels, length))})


def check_conv(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """Raises ValueError if the arguments of a causal convolution do not fit together."""
    if activation not in ("silu", None):
        raise ValueError(f'causal_conv1d: activation must be "silu" or None, found {activation!r}.')
    if x.dim() != 3:
        raise ValueError(f"causal_conv1d: x must be [B, D, L], found the shape {tuple(x.shape)}.")
    if weight.dim() != 2 or weight.shape[1] < 1:
        raise ValueError(f"causal_conv1d: weight must be [D, W] or [D, 1, W], found {tuple(weight.shape)}.")
    channels = x.shape[1]
    _check("causal_conv1d", x, {"weight": (weight, (channels, weight.shape[1])), "bias": (bias, (channels,))})


def _check(function: str, lead: Tensor, tensors: dict[str, tuple[Tensor | None, tuple[int, ...]]]) -> None:
    if not lead.is_floating_point():
        raise ValueError(f"{function}: the input must be real floating point, found {lead.dtype}.")
    for name, (tensor, shape) in tensors.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{function}: {name} must have the shape {shape}, found {tuple(tensor.shape)}.")
        if not tensor.is_floating_point():
            raise ValueError(f"{function}: {name} must be real floating point, found {tensor.dtype}.")
        if tensor.device != lead.device:
            raise ValueError(f"{function}: {name} is on {tensor.device}, the input is on {lead.device}.")
