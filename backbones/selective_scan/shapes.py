"""The tensors of one scan, and checks of their shapes with clear messages."""

from typing import NamedTuple

from torch import Tensor


class ScanInputs(NamedTuple):
    """The tensors of one scan direction, in sequence order (never flipped).

    Attributes:
        u: Input sequence, [B, D, L].
        delta: Step sizes before ``delta_bias`` and softplus, [B, D, L].
        A: State matrix, one diagonal per channel, [D, N].
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


class MixerWeights(NamedTuple):
    """The weights of one direction of a mixer with E channels, N states and step sizes of rank R.

    Attributes:
        conv: Filters of the causal convolution, [E, W].
        conv_bias: [E].
        x_proj: From the convolved input to the low-rank step sizes, B and C, [R + 2N, E].
        dt_proj: From the low-rank step sizes to those of all channels, [E, R].
        dt_bias: Added to the step sizes before softplus, [E].
        A: State matrix, [E, N].
        D: Skip connection, [E].
    """

    conv: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor


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


def check_mixer(x: Tensor, z: Tensor, weights: MixerWeights) -> None:
    """Raises ValueError if the sequences and the weights of a direction do not fit together."""
    if x.dim() != 3 or weights.conv.dim() != 2 or weights.dt_proj.dim() != 2 or weights.A.dim() != 2:
        shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in (("x", x), *weights._asdict().items()))
        raise ValueError(f"bidirectional_mixer: x must be [B, E, L], conv, dt_proj and A matrices; found {shapes}.")
    channels, rank, states = x.shape[1], weights.dt_proj.shape[1], weights.A.shape[1]
    expected = {
        "conv": (channels, weights.conv.shape[1]),
        "conv_bias": (channels,),
        "x_proj": (rank + 2 * states, channels),
        "dt_proj": (channels, rank),
        "dt_bias": (channels,),
        "A": (channels, states),
        "D": (channels,),
    }
    _check("bidirectional_mixer", x, {name: (getattr(weights, name), shape) for name, shape in expected.items()})
    _check("bidirectional_mixer", x, {"z": (z, tuple(x.shape))})


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
