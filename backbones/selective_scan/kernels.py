"""The kernel interface of an implementation, and the casts around it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from backbones.selective_scan.shapes import MixerWeights, ScanInputs


class Direction(NamedTuple):
    """One scan direction: its tensors in the computing data type, and which way it runs."""

    inputs: ScanInputs
    reverse: bool


class Kernels(Protocol):
    """The kernels that an implementation must provide.

    Attributes:
        casts: Whether half-precision tensors are cast to float32 before the call. Kernels that read half precision
            and accumulate in float32 set it to False.
    """

    casts: bool

    def scan(self, directions: Sequence[Direction], z: Tensor | None, softplus: bool) -> Tensor:
        """Mean over the directions of the gated scan, [B, D, L]."""
        ...

    def scan_backward(
        self, grad: Tensor, directions: Sequence[Direction], z: Tensor | None, softplus: bool
    ) -> tuple[list[ScanInputs], Tensor | None]:
        """Gradients of ``scan``: one ``ScanInputs`` per direction, and the gradient of z."""
        ...

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        """Causal depthwise convolution of [B, D, L] with [D, W]."""
        ...

    def conv_backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool,
        onto: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Gradients of ``conv`` in x, weight and bias; that in x is added to ``onto``, in place, if it is given."""
        ...


class Operators(Protocol):
    """The four differentiable operators, with the arguments of ``operators``, which are already checked."""

    def scan(self, inputs: ScanInputs, z: Tensor | None, softplus: bool, reverse: bool) -> Tensor:
        """One direction."""
        ...

    def bidirectional(self, forward: ScanInputs, backward: ScanInputs, z: Tensor | None, softplus: bool) -> Tensor:
        """Mean of both directions."""
        ...

    def causal_conv1d(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, reverse: bool
    ) -> Tensor:
        """Causal depthwise convolution."""
        ...

    def mixer(self, x: Tensor, z: Tensor, forward: MixerWeights, backward: MixerWeights) -> Tensor:
        """Convolution, projections and scan of both directions."""
        ...


def no_autocast(lead: Tensor) -> torch.autocast:
    """The cast is done; autocast would undo it in kernels that are made of torch's operations."""
    return torch.autocast(lead.device.type, enabled=False)


def compute_in_float32(kernels: Kernels, lead: Tensor, tensors: Sequence[Tensor | None]) -> list[Any]:
    """Casts every tensor to the data type of the computation: float64 for float64, else float32."""
    if not kernels.casts:
        return list(tensors)
    dtype = torch.float64 if lead.dtype == torch.float64 else torch.float32
    return [None if tensor is None else tensor.detach().to(dtype) for tensor in tensors]


def wanted(
    grads: Sequence[Tensor | None], tensors: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """Drops the gradients that are not needed and casts the others to the data type of their tensors."""
    return [
        grad.to(tensor.dtype) if need and grad is not None and tensor is not None else None
        for grad, tensor, need in zip(grads, tensors, needed, strict=True)
    ]
