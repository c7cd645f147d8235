"""The kernels of the packages ``mamba-ssm`` and ``causal-conv1d``, through their public functions, on NVIDIA GPUs."""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from backbones.selective_scan.autograd import Differentiable
from backbones.selective_scan.mixer import composed
from backbones.selective_scan.plain import PlainKernels
from backbones.selective_scan.shapes import MixerWeights, ScanInputs

HINT = "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation mamba-ssm"
"""Releases after 2.3.2 build the CUDA scan only if the variable is set. Earlier ones ignore it."""


@cache
def _function(compiled: str, module: str, name: str, package: str, hint: str) -> tuple[Any, str]:
    """A public function, or None and a sentence that says why it is unavailable.

    The compiled part is imported first: a package may be importable without it, and raise when it is called.
    """
    if not torch.cuda.is_available():
        return None, f"{package} needs an NVIDIA GPU, and PyTorch sees none here."
    try:
        import_module(compiled)
        return getattr(import_module(module), name), ""
    # The compiled part may be absent (ImportError) or built for another version of PyTorch (OSError and others).
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return None, f"{package} cannot be used ({reason}). Install it with: {hint}."


def scan_function() -> tuple[Any, str]:
    """``mamba_ssm``'s ``selective_scan_fn``, or None and the reason."""
    module = "mamba_ssm.ops.selective_scan_interface"
    return _function("selective_scan_cuda", module, "selective_scan_fn", "mamba-ssm", HINT)


def conv_function() -> tuple[Any, str]:
    """``causal_conv1d``'s ``causal_conv1d_fn``, or None and the reason."""
    hint = "pip install --no-build-isolation causal-conv1d"
    return _function("causal_conv1d_cuda", "causal_conv1d", "causal_conv1d_fn", "causal-conv1d", hint)


class MambaSsm:
    """The operators on top of the two packages; the reverse direction is flipped before and after."""

    def __init__(self) -> None:
        self._scan = scan_function()[0]
        self._conv = conv_function()[0]
        self._plain = Differentiable(PlainKernels())

    def scan(self, inputs: ScanInputs, z: Tensor | None, softplus: bool, reverse: bool) -> Tensor:
        """See ``operators.selective_scan``."""
        u, delta, A, B, C, D, bias = inputs
        if reverse:
            u, delta, B, C = (tensor.flip(-1) for tensor in (u, delta, B, C))
            z = None if z is None else z.flip(-1)
        # The kernels need parameters in float32, and one data type for all other tensors.
        delta, B, C = (tensor.to(u.dtype) for tensor in (delta, B, C))
        D, bias = (None if tensor is None else tensor.float() for tensor in (D, bias))
        z = None if z is None else z.to(u.dtype)
        out = self._scan(u, delta, A.float(), B, C, D, z=z, delta_bias=bias, delta_softplus=softplus)
        return out.flip(-1) if reverse else out

    def bidirectional(self, forward: ScanInputs, backward: ScanInputs, z: Tensor | None, softplus: bool) -> Tensor:
        """See ``operators.bidirectional_scan``."""
        return (self.scan(forward, z, softplus, False) + self.scan(backward, z, softplus, True)) / 2

    def causal_conv1d(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, reverse: bool
    ) -> Tensor:
        """See ``operators.causal_conv1d``; uses plain PyTorch if the package is missing or the filter is too wide."""
        if self._conv is None or not 2 <= weight.shape[1] <= 4:
            return self._plain.causal_conv1d(x, weight, bias, activation, reverse)
        x = x.flip(-1) if reverse else x
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        out = self._conv(x, weight, bias, activation=activation)
        return out.flip(-1) if reverse else out

    def mixer(self, x: Tensor, z: Tensor, forward: MixerWeights, backward: MixerWeights) -> Tensor:
        """See ``operators.bidirectional_mixer``; the public functions of the packages store all their inputs."""
        return composed(self, x, z, forward, backward)
