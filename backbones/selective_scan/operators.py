"""The public operators: check the shapes, choose an implementation, call it."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from backbones.selective_scan.choice import implementation_serving
from backbones.selective_scan.shapes import MixerWeights, ScanInputs, check_conv, check_mixer, check_scan

P = ParamSpec("P")
R = TypeVar("R")


def outside_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """Keeps `torch.compile` out of a function: kernels of Numba and Triton are compiled already."""
    apart = torch._disable_dynamo(function)  # `torch.compiler.disable` would import the compiler now

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return apart(*args, **kwargs) if torch.compiler.is_compiling() else function(*args, **kwargs)

    return call


@outside_graphs
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    implementation: str = "auto",
) -> Tensor:
    """Selective state-space scan, differentiable in every tensor (arXiv 2312.00752, algorithm 2).

    With ``d = softplus(delta + delta_bias)`` (softplus only if asked for) and a zero initial state::

        h_t = exp(d_t A) h_{t-1} + d_t B_t u_t        y_t = C_t h_t + D u_t        out_t = y_t silu(z_t)

    Half-precision inputs are computed in float32; float64 stays float64.

    Args:
        u: Input sequence, [B, D, L].
        delta: Step sizes, [B, D, L].
        A: Diagonal state matrix of each channel, [D, N].
        B: Input matrix at each step, shared by the channels, [B, N, L].
        C: Output matrix at each step, shared by the channels, [B, N, L].
        D: Skip connection, [D].
        z: Gate, [B, D, L].
        delta_bias: Added to ``delta`` before softplus, [D].
        delta_softplus: Whether softplus is applied to the step sizes.
        reverse: Scan from the last step to the first: as if inputs and output were flipped in time, without copies.
        implementation: A name of ``available_implementations()``; "auto" chooses by device and data type.

    Returns:
        The output, [B, D, L], in the data type of ``u``.

    Raises:
        ValueError: If the shapes do not fit together or the implementation cannot serve these tensors.
    """
    inputs = ScanInputs(u, delta, A, B, C, D, delta_bias)
    check_scan(inputs, z)
    return implementation_serving(u, implementation).scan(inputs, z, delta_softplus, reverse)


@outside_graphs
def bidirectional_scan(
    forward: ScanInputs,
    backward: ScanInputs,
    *,
    z: Tensor | None = None,
    delta_softplus: bool = True,
    implementation: str = "auto",
) -> Tensor:
    """Mean of a scan from first to last step and one from last to first, both gated by ``silu(z)``.

    This is the bidirectional mixer of Vision Mamba with the division by two that MambaR uses (arXiv
    2405.14858): ``(scan(forward) + scan(backward, reversed in time)) / 2 * silu(z)``. Nothing is flipped: every
    tensor, also those of ``backward``, is in sequence order.

    Args:
        forward: The tensors of the direction from the first step to the last.
        backward: The tensors of the direction from the last step to the first.
        z: Gate shared by both directions, [B, D, L].
        delta_softplus: Whether softplus is applied to the step sizes (the model always does).
        implementation: A name of ``available_implementations()``; "auto" chooses by device and data type.

    Returns:
        The output, [B, D, L], in the data type of ``forward.u``.

    Raises:
        ValueError: If the shapes do not fit together or the implementation cannot serve these tensors.
    """
    check_scan(forward, z)
    check_scan(backward, z)
    if forward.u.shape != backward.u.shape:
        raise ValueError(
            f"bidirectional_scan: u of both directions must agree, found {tuple(forward.u.shape)} "
            f"and {tuple(backward.u.shape)}."
        )
    operators = implementation_serving(forward.u, implementation)
    return operators.bidirectional(forward, backward, z, delta_softplus)


@outside_graphs
def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = "silu",
    reverse: bool = False,
    implementation: str = "auto",
) -> Tensor:
    """Depthwise convolution in which step t sees steps t-W+1 ... t only, followed by SiLU.

    ``out_t = silu(bias + sum_j weight[j] x[t-W+1+j])`` with zeros before the first step. ``reverse`` looks
    ahead instead: ``weight[j]`` meets ``x[t+W-1-j]``, as if the sequence were flipped before and after.

    Args:
        x: Input sequence, [B, D, L].
        weight: One filter per channel, [D, W], or [D, 1, W] as in ``torch.nn.Conv1d``.
        bias: [D], or None.
        activation: "silu", or None for the bare convolution.
        reverse: Convolve from the last step to the first.
        implementation: A name of ``available_implementations()``; "auto" chooses by device and data type.

    Returns:
        The output, [B, D, L], in the data type of ``x``.

    Raises:
        ValueError: If the shapes do not fit together or the implementation cannot serve these tensors.
    """
    if weight.dim() == 3 and weight.shape[1] == 1:
        weight = weight.squeeze(1)
    check_conv(x, weight, bias, activation)
    return implementation_serving(x, implementation).causal_conv1d(x, weight, bias, activation, reverse)


@outside_graphs
def bidirectional_mixer(
    x: Tensor, z: Tensor, forward: MixerWeights, backward: MixerWeights, *, implementation: str = "auto"
) -> Tensor:
    """Everything between the projections of Vision Mamba's bidirectional mixer (arXiv 2401.09417, algorithm 1).

    For each direction, ``u = silu(conv(x))``; step sizes, B and C are linear in u, step sizes with low rank. Then
    ``bidirectional_scan`` runs with softplus, gated by z. The values are those of the single operators. With the
    project's own kernels, only x, z and the low-rank projections are stored for the backward pass; the rest is
    recomputed.

    Args:
        x: Input sequence, [B, E, L].
        z: Gate, [B, E, L].
        forward: The weights of the direction from the first step to the last.
        backward: The weights of the direction from the last step to the first.
        implementation: A name of ``available_implementations()``; "auto" chooses by device and data type.

    Returns:
        The output, [B, E, L], in the data type of ``x``.

    Raises:
        ValueError: If the shapes do not fit together or the implementation cannot serve these tensors.
    """
    check_mixer(x, z, forward)
    check_mixer(x, z, backward)
    return implementation_serving(x, implementation).mixer(x, z, forward, backward)
