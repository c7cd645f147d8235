"""The scan in plain PyTorch, for any device and floating-point type, without an autograd graph over all steps.

It processes the sequence in chunks, so that the tensor of all states, [B, D, N, L], never exists. The forward pass
stores one state. The backward pass stores the state at the start of each chunk and recomputes the others.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.selective_scan.kernels import Direction
from backbones.selective_scan.shapes import ScanInputs

CHUNK = 16
"""Number of steps per chunk."""


class PlainKernels:
    """Kernels made of PyTorch operations."""

    casts = True

    def scan(self, directions: Sequence[Direction], z: Tensor | None, softplus: bool) -> Tensor:
        """Mean over the directions of the gated scan."""
        total = _ungated_mean(directions, softplus)
        return total if z is None else total * F.silu(z)

    def scan_backward(
        self, grad: Tensor, directions: Sequence[Direction], z: Tensor | None, softplus: bool
    ) -> tuple[list[ScanInputs], Tensor | None]:
        """Gradients of ``scan``."""
        grad_z = None
        if z is not None:
            gate = torch.sigmoid(z)
            grad_z = grad * _ungated_mean(directions, softplus) * gate * (1 + z * (1 - gate))
            grad = grad * z * gate
        grad = grad / len(directions)
        return [_scan_backward(grad, direction, softplus) for direction in directions], grad_z

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        """Causal depthwise convolution."""
        out = _bare_conv(x, weight, bias, reverse)
        return F.silu(out) if silu else out

    def conv_backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool,
        onto: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Gradients of ``conv``."""
        if silu:
            out = _bare_conv(x, weight, bias, reverse)
            gate = torch.sigmoid(out)
            grad = grad * gate * (1 + out * (1 - gate))
        width, length = weight.shape[1], x.shape[2]
        # The gradient of x is the convolution in reverse direction; that of a tap is a product of shifted sequences.
        grad_x = _bare_conv(grad, weight, None, not reverse)
        grad_x = grad_x if onto is None else onto.add_(grad_x)
        padded = F.pad(x, (0, width - 1) if reverse else (width - 1, 0))
        taps = [(padded[:, :, j : j + length] * grad).sum((0, 2)) for j in range(width)]
        grad_weight = torch.stack(taps[::-1] if reverse else taps, dim=1)
        return grad_x, grad_weight, None if bias is None else grad.sum((0, 2))


def _bare_conv(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    width = weight.shape[1]
    padded = F.pad(x, (0, width - 1) if reverse else (width - 1, 0))
    return F.conv1d(padded, (weight.flip(1) if reverse else weight).unsqueeze(1), bias, groups=x.shape[1])


def _step_sizes(inputs: ScanInputs, softplus: bool) -> tuple[Tensor, Tensor]:
    """The step sizes before and after softplus, [B, D, L]."""
    raw = inputs.delta
    if inputs.delta_bias is not None:
        raw = raw + inputs.delta_bias[:, None]
    return raw, F.softplus(raw) if softplus else raw


def _ungated_mean(directions: Sequence[Direction], softplus: bool) -> Tensor:
    total = _ungated(directions[0], softplus)
    for direction in directions[1:]:
        total += _ungated(direction, softplus)
    return total / len(directions)


def _chunks(length: int, reverse: bool) -> list[list[int]]:
    """Returns the steps in the order of the scan, in chunks."""
    steps = list(range(length - 1, -1, -1) if reverse else range(length))
    return [steps[i : i + CHUNK] for i in range(0, length, CHUNK)]


def _run_chunk(h: Tensor, steps: list[int], step_sizes: Tensor, inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Decays and states after each step of a chunk that starts in state h; both [T, B, D, N]."""
    d, u, B = (_read(tensor, steps) for tensor in (step_sizes, inputs.u, inputs.B))
    decays = torch.exp(d[..., None] * inputs.A)
    states = (d * u)[..., None] * B[:, :, None]
    for t in range(len(steps)):
        h = states[t].addcmul_(decays[t], h)
    return decays, states


def _window(steps: list[int]) -> slice:
    return slice(min(steps), max(steps) + 1)


def _read(tensor: Tensor, steps: list[int]) -> Tensor:
    """The given steps of [B, X, L], as [T, B, X] in the order of the scan."""
    chunk = tensor[:, :, _window(steps)].permute(2, 0, 1)
    return chunk.flip(0) if steps[0] > steps[-1] else chunk


def _write(tensor: Tensor, steps: list[int], values: Tensor) -> None:
    """Writes [T, B, X] in the order of the scan to the given steps of [B, X, L]."""
    if steps[0] > steps[-1]:
        values = values.flip(0)
    tensor[:, :, _window(steps)] = values.permute(1, 2, 0)


def _initial_state(inputs: ScanInputs) -> Tensor:
    batch, channels, _ = inputs.u.shape
    return inputs.u.new_zeros(batch, channels, inputs.A.shape[1])


def _ungated(direction: Direction, softplus: bool) -> Tensor:
    inputs = direction.inputs
    _, step_sizes = _step_sizes(inputs, softplus)
    out = torch.empty_like(inputs.u)
    h = _initial_state(inputs)
    for steps in _chunks(inputs.u.shape[2], direction.reverse):
        _, states = _run_chunk(h, steps, step_sizes, inputs)
        h = states[-1]
        _write(out, steps, torch.einsum("tbdn,tbn->tbd", states, _read(inputs.C, steps)))
    return out if inputs.D is None else out.addcmul_(inputs.u, inputs.D[:, None])


def _scan_backward(grad: Tensor, direction: Direction, softplus: bool) -> ScanInputs:
    """Gradients of the ungated scan of one direction; formulas in README.md."""
    inputs = direction.inputs
    raw, step_sizes = _step_sizes(inputs, softplus)
    chunks = _chunks(inputs.u.shape[2], direction.reverse)
    starts = [_initial_state(inputs)]
    for steps in chunks[:-1]:
        starts.append(_run_chunk(starts[-1], steps, step_sizes, inputs)[1][-1].clone())

    grad_u, grad_delta = torch.empty_like(inputs.u), torch.empty_like(inputs.delta)
    grad_B, grad_C = torch.empty_like(inputs.B), torch.empty_like(inputs.C)
    grad_A = torch.zeros_like(inputs.A)
    grad_h = _initial_state(inputs)
    for steps, start in zip(reversed(chunks), reversed(starts), strict=True):
        decays, states = _run_chunk(start, steps, step_sizes, inputs)
        gy, d, u, B, C = (_read(tensor, steps) for tensor in (grad, step_sizes, inputs.u, inputs.B, inputs.C))
        grad_states = gy[..., None] * C[:, :, None]
        for t in range(len(steps) - 1, -1, -1):
            grad_states[t] += grad_h
            grad_h = grad_states[t] * decays[t]
        _write(grad_C, steps, torch.einsum("tbdn,tbd->tbn", states, gy))
        _write(grad_B, steps, torch.einsum("tbdn,tbd->tbn", grad_states, d * u))
        grad_x = torch.einsum("tbdn,tbn->tbd", grad_states, B)
        _write(grad_u, steps, grad_x * d)
        before = torch.cat([start[None], states[:-1]])
        grad_exponent = grad_states.mul_(decays).mul_(before)
        grad_A += torch.einsum("tbdn,tbd->dn", grad_exponent, d)
        _write(grad_delta, steps, torch.einsum("tbdn,dn->tbd", grad_exponent, inputs.A) + grad_x * u)
    if inputs.D is not None:
        grad_u.addcmul_(grad, inputs.D[:, None])
    if softplus:
        grad_delta *= torch.sigmoid(raw)
    return ScanInputs(
        grad_u,
        grad_delta,
        grad_A,
        grad_B,
        grad_C,
        None if inputs.D is None else (grad * inputs.u).sum((0, 2)),
        None if inputs.delta_bias is None else grad_delta.sum((0, 2)),
    )
