"""Compiles the Triton kernels of the selective scan and reports what the compiler made of them; no GPU is needed.

    python benchmarks/gpu_compiled.py                     the table of backbones/selective_scan/README.md
    python benchmarks/gpu_compiled.py --every             every configuration in use

Each launch of `backbones/selective_scan/gpu.py` is recorded with its real arguments, and specialised like Triton does it.
Registers, spills and shared memory come from the compiled binary. Instructions are those of the loops over time, as
thread instructions per channel and step of one direction. Two lower bounds follow for ReIDMamba-S at batch 64:

- memory: the bytes that must be read and written, at the bandwidth of the card
- issue: the instructions, one per scheduler and cycle

Nothing is run, so no time is measured. `python benchmarks/gpu_scan.py` measures on a GPU.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from backbones.selective_scan.gpu import GpuKernels
from backbones.selective_scan.kernels import Direction
from backbones.selective_scan.shapes import ScanInputs

BATCH, CHANNELS, LENGTH, STATES, TAPS = 64, 768, 140, 16, 4  # of ReIDMamba-S at 256x128
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
POINTERS = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}


@dataclass(frozen=True)
class Card:
    """What the bounds and the occupancy need; from NVIDIA's data sheets and the CUDA programming guide."""

    name: str
    multiprocessors: int
    clock: float  # GHz
    bandwidth: float  # TB/s
    shared: int  # KiB of a multiprocessor


CARDS = {80: Card("A100 80GB", 108, 1.41, 2.04, 164), 90: Card("H100 SXM", 132, 1.83, 3.35, 228)}


@dataclass(frozen=True)
class Launch:
    """A kernel with the arguments of one call."""

    kernel: JITFunction
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    warps: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Code:
    """What the compiler made of a launch."""

    registers: int
    spilled: int  # bytes a thread
    shared: int  # bytes a program
    warps: int
    loops: tuple[Counter[str], ...]  # opcodes of each loop

    def programs(self, card: Card) -> int:
        """Programs that fit a multiprocessor at the same time."""
        registers = 65536 // (-(-self.registers // 8) * 8 * 32 * self.warps)
        shared = card.shared * 1024 // (self.shared + 1024)
        return min(registers, shared, 64 // self.warps, 32)

    def occupancy(self, card: Card) -> float:
        """Warps at the same time as a fraction of the most a multiprocessor can hold."""
        return self.programs(card) * self.warps / 64

    def instructions(self, elements: int, opcode: str = "") -> float:
        """Thread instructions of all loops per element; `elements` is what one pass of a program covers."""
        counted = sum(n for loop in self.loops for name, n in loop.items() if name.startswith(opcode))
        return counted * 32 * self.warps / elements


def record(call: Callable[[], object]) -> Launch:
    """Returns the launch that a call makes, without making it."""
    found: list[Launch] = []

    def run(
        kernel: JITFunction,
        *args: Any,
        grid: tuple[int, ...],
        warmup: bool,
        num_warps: int = 4,
        maxnreg: int | None = None,
        **named: Any,
    ):
        names = [parameter.name for parameter in kernel.params]
        found.append(
            Launch(
                kernel,
                grid,
                dict(zip(names, args, strict=False)) | named,
                num_warps,
                {"maxnreg": maxnreg} if maxnreg else {},
            )
        )

    with patch.object(JITFunction, "run", run):
        call()
    (launch,) = found
    return launch


def compiled(launch: Launch, capability: int) -> Code:
    """Compiles a launch for a compute capability: 80 or 90."""
    signature, constants, divisible = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if isinstance(value, Tensor):
            signature[parameter.name], multiple = POINTERS[value.dtype], True
        elif parameter.is_constexpr or value == 1 and isinstance(value, int):
            signature[parameter.name], constants[parameter.name], multiple = "constexpr", value, False
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
            multiple = isinstance(value, int) and value % 16 == 0
        if multiple:
            divisible[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, divisible)
    binary = triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": launch.warps} | launch.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, assembly = (_cuobjdump(option, file.name) for option in ("--dump-resource-usage", "--dump-sass"))
    numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    loops = tuple(_loops(assembly))
    return Code(numbers["REG"], numbers["STACK"] + numbers["LOCAL"], binary.metadata.shared, launch.warps, loops)


def _cuobjdump(option: str, file: str) -> str:
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([program, option, file], check=True, capture_output=True, text=True).stdout


def _loops(assembly: str) -> Iterator[Counter[str]]:
    """The opcodes between each backward branch and its target."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?(\S+)([^;]*);", assembly)
    for address, opcode, operands in lines:
        if opcode.startswith("BRA") and (target := re.search(r"0x([0-9a-f]+)", operands)):
            first, last = int(target[1], 16), int(address, 16)
            if first < last:
                yield Counter(name for at, name, _ in lines if first <= int(at, 16) <= last)


def kernel_calls(
    batch: int,
    channels: int,
    length: int,
    states: int,
    dtype: torch.dtype,
    channels_last: bool = True,
    both: bool = True,
) -> dict[str, Callable[[], object]]:
    """Returns calls of each kernel with tensors as in a mixer; channels side by side, or steps."""

    def sequence(width: int) -> Tensor:
        return (
            torch.empty(batch, length, width, dtype=dtype).transpose(1, 2)
            if channels_last
            else (torch.empty(batch, width, length, dtype=dtype))
        )

    def one(reverse: bool) -> Direction:
        B, C = torch.empty(batch, length, 24 + 2 * states, dtype=dtype).split([24 + states, states], -1)
        B = B[..., 24:]
        vectors = torch.empty(2, channels)
        inputs = ScanInputs(sequence(channels), sequence(channels), torch.empty(channels, states),
                            B.transpose(1, 2), C.transpose(1, 2), *vectors)  # fmt: skip
        return Direction(inputs, reverse)

    directions = [one(False), one(True)][: 1 + both]
    x, z = sequence(2 * channels).chunk(2, 1)
    grad, weight, bias = sequence(channels), torch.empty(channels, TAPS), torch.empty(channels)
    kernels = GpuKernels()
    return {
        "scan_forward": lambda: kernels.scan(directions, z, True),
        "scan_backward": lambda: kernels.scan_backward(grad, directions, z, True),
        "conv_forward": lambda: kernels.conv(x, weight, bias, True, False),
        "conv_backward": lambda: kernels.conv_backward(grad, x, weight, bias, True, False),
    }
