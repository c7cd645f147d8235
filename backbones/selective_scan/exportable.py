"""The selective scan as a loop that exporters understand: torch's `scan`, which becomes the operator Scan of ONNX.

The other implementations call compiled kernels or loop in Python, which exporters cannot follow. This one has no
gradients of its own. Both directions share one loop, and the state is laid out as [B, direction, N, D]: the channels
come last, so each operation of a step works on long rows. docs/deploy.md has the speed of other forms.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.selective_scan.mixer import composed
from backbones.selective_scan.shapes import MixerWeights, ScanInputs


class ExportableOperators:
    """The operators in a form that exporters understand."""

    def scan(self, inputs: ScanInputs, z: Tensor | None, softplus: bool, reverse: bool) -> Tensor:
        """One direction."""
        return _gated(_scan([inputs], [reverse], softplus), z)

    def bidirectional(self, forward: ScanInputs, backward: ScanInputs, z: Tensor | None, softplus: bool) -> Tensor:
        """Mean of both directions."""
        return _gated(_scan([forward, backward], [False, True], softplus) / 2, z)

    def causal_conv1d(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, reverse: bool
    ) -> Tensor:
        """Causal depthwise convolution."""
        width = weight.shape[1]
        padded = F.pad(x, (0, width - 1) if reverse else (width - 1, 0))
        out = F.conv1d(padded, (weight.flip(1) if reverse else weight).unsqueeze(1), bias, groups=x.shape[1])
        return F.silu(out) if activation == "silu" else out

    def mixer(self, x: Tensor, z: Tensor, forward: MixerWeights, backward: MixerWeights) -> Tensor:
        """Convolution, projections and scan of both directions."""
        return composed(self, x, z, forward, backward)


def _gated(y: Tensor, z: Tensor | None) -> Tensor:
    return y if z is None else y * F.silu(z)


def _scan(directions: Sequence[ScanInputs], reverses: Sequence[bool], softplus: bool) -> Tensor:
    """Sum over the directions of the ungated scan, [B, D, L]."""
    from torch._higher_order_ops.scan import scan  # torch has no public name for it yet

    sequences = [_sequences(inputs, softplus, reverse) for inputs, reverse in zip(directions, reverses, strict=True)]
    products, steps, B, C = (torch.stack(parts, dim=2) for parts in zip(*sequences, strict=True))
    A = torch.stack([inputs.A.t() for inputs in directions])  # [direction, N, D]
    batch, channels, _ = directions[0].u.shape

    def step(state: Tensor, at: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        product, size, B, C = at
        state = torch.exp(size * A) * state + product * B
        return state, torch.matmul(C, state)

    start = products.new_zeros(batch, *A.shape[:2], channels)
    _, out = scan(step, start, (products, steps, B, C), dim=0)  # [L, B, direction, 1, D]
    rows = (out[:, :, i, 0] for i in range(len(directions)))
    total = sum(_turned(row, reverse) for row, reverse in zip(rows, reverses, strict=True))
    assert isinstance(total, Tensor)
    y = total.permute(1, 2, 0)
    for inputs in directions:
        y = y if inputs.D is None else y + inputs.u * inputs.D[:, None]
    return y


def _sequences(inputs: ScanInputs, softplus: bool, reverse: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a step reads, in the order of the scan: step size times input and step size [L, B, 1, D], B, C."""
    raw = inputs.delta if inputs.delta_bias is None else inputs.delta + inputs.delta_bias[:, None]
    size = F.softplus(raw) if softplus else raw
    product, size, B, C = (_turned(t.permute(2, 0, 1), reverse) for t in (size * inputs.u, size, inputs.B, inputs.C))
    return product.unsqueeze(2), size.unsqueeze(2), B.unsqueeze(3), C.unsqueeze(2)


def _turned(sequence: Tensor, reverse: bool) -> Tensor:
    return sequence.flip(0) if reverse else sequence
