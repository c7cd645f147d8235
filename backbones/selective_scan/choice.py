"""Chooses the implementation for tensors, and explains why others are not available."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from backbones.selective_scan.kernels import Operators

AVAILABLE = "available"

_HALF_OR_SINGLE = (torch.float32, torch.float16, torch.bfloat16)
_forced: ContextVar[str] = ContextVar("selective_scan_implementation", default="auto")


class _Implementation(NamedTuple):
    state: Callable[[], str]  # AVAILABLE, or a sentence that says why not
    serves: Callable[[torch.device, torch.dtype], bool]
    load: Callable[[], Operators]


def available_implementations() -> dict[str, str]:
    """Returns the name of each implementation with "available", or with the reason why it is not.

    Never raises, and needs no GPU.
    """
    return {name: entry.state() for name, entry in _IMPLEMENTATIONS.items()}


def implementation_for(device: torch.device | str, dtype: torch.dtype) -> str:
    """Returns the name of the implementation that "auto" chooses for this device and data type."""
    device = torch.device(device)
    forced = _forced.get()
    if forced != "auto":
        return forced
    if torch.compiler.is_exporting():
        return "export"
    for name, entry in _IMPLEMENTATIONS.items():
        if entry.serves(device, dtype) and entry.state() == AVAILABLE:
            return name
    return "torch"


@contextmanager
def use_implementation(name: str) -> Iterator[None]:
    """Returns a context in which "auto" means the given implementation, for measurements and debugging.

    Raises:
        ValueError: The implementation does not exist.
    """
    _known(name)
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def implementation_serving(tensor: Tensor, name: str = "auto") -> Operators:
    """Returns the operators for tensors with the device and data type of this one.

    Raises:
        ValueError: The implementation is unknown, not available, or does not support this device and data type.
    """
    if name == "auto":
        name = implementation_for(tensor.device, tensor.dtype)
    _known(name)
    entry = _IMPLEMENTATIONS[name]
    if entry.state() != AVAILABLE:
        raise ValueError(f'The selective scan "{name}" cannot be used: {entry.state()}')
    if not entry.serves(tensor.device, tensor.dtype):
        where = f"{tensor.dtype} on {tensor.device.type}"
        raise ValueError(f'The selective scan "{name}" does not serve {where}.')
    return entry.load()


def _known(name: str) -> None:
    if name != "auto" and name not in _IMPLEMENTATIONS:
        names = ", ".join(["auto", *_IMPLEMENTATIONS])
        raise ValueError(f'There is no selective scan called "{name}"; choose one of {names}.')


@cache
def _numba_state() -> str:
    try:
        importlib.import_module("numba")
    except Exception as error:  # not installed, or incompatible with the installed NumPy
        return f"Numba cannot be imported ({error}); pip install numba."
    return AVAILABLE


@cache
def _load_cpu() -> Operators:
    from backbones.selective_scan.autograd import Differentiable
    from backbones.selective_scan.cpu import CpuKernels

    return Differentiable(CpuKernels())


def _mamba_ssm_state() -> str:
    from backbones.selective_scan.mamba_ssm import scan_function

    return scan_function()[1] or AVAILABLE


@cache
def _load_mamba_ssm() -> Operators:
    from backbones.selective_scan.mamba_ssm import MambaSsm

    return MambaSsm()


def _triton_state() -> str:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; it comes with PyTorch for GPUs on Linux."
    if not torch.cuda.is_available() and not _interpreted():
        return "Triton needs a GPU, and PyTorch sees none here."
    return AVAILABLE


def _serves_triton(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype in _HALF_OR_SINGLE and (device.type == "cuda" or (device.type == "cpu" and _interpreted()))


def _interpreted() -> bool:
    """Whether Triton kernels run in Triton's interpreter, on the CPU: correct and very slow, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _load_triton() -> Operators:
    from backbones.selective_scan.autograd import Differentiable
    from backbones.selective_scan.gpu import GpuKernels

    return Differentiable(GpuKernels())


@cache
def _load_exportable() -> Operators:
    from backbones.selective_scan.exportable import ExportableOperators

    return ExportableOperators()


@cache
def _load_torch() -> Operators:
    from backbones.selective_scan.autograd import Differentiable
    from backbones.selective_scan.plain import PlainKernels

    return Differentiable(PlainKernels())


_IMPLEMENTATIONS: dict[str, _Implementation] = {
    "cpu": _Implementation(
        _numba_state, lambda device, dtype: device.type == "cpu" and dtype in _HALF_OR_SINGLE, _load_cpu
    ),
    "mamba_ssm": _Implementation(
        _mamba_ssm_state, lambda device, dtype: device.type == "cuda" and dtype in _HALF_OR_SINGLE, _load_mamba_ssm
    ),
    "triton": _Implementation(_triton_state, _serves_triton, _load_triton),
    "torch": _Implementation(lambda: AVAILABLE, lambda device, dtype: dtype.is_floating_point, _load_torch),
    "export": _Implementation(lambda: AVAILABLE, lambda device, dtype: dtype.is_floating_point, _load_exportable),
}
