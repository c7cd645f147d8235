"""Compiles the Triton kernels of the selective scan and reports what the compiler made of them; no GPU is needed.

    python benchmarks/gpu_compiled.py              the sizes of ReIDMamba-S in bf16, with bounds
    python benchmarks/gpu_compiled.py --every      every configuration in use; the exit code is 1 if a limit is exceeded

It records the launches of `backbones/selective_scan/gpu.py` and specialises their arguments as Triton does. Registers,
spills and shared memory come from the binary. Instructions are counted in the loops over time, per channel and step of
one direction. Two lower bounds of the time follow:

- memory: the bytes that a kernel reads and writes, at the bandwidth of the card
- issue: the instructions, one per scheduler and cycle, or one exponential or division per eight cycles

Nothing is run or timed: `python benchmarks/gpu_scan.py` measures on a GPU.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
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
MOST_REGISTERS = {"scan_forward": 232, "scan_backward": 255, "conv_forward": 96, "conv_backward": 128}
"""Limits of registers per thread. 255 is the most there is; the others leave room for 8, 21 and 16 programs."""
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


CARDS = {80: Card("A100 80GB", 108, 1.41, 2.04, 164), 90: Card("H100 SXM", 132, 1.98, 3.35, 228)}


@dataclass(frozen=True)
class Launch:
    """A kernel with the arguments of one call."""

    kernel: JITFunction
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    warps: int


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

    def spills_in_loops(self) -> bool:
        """Whether a loop accesses local memory. The compiler may move single values there between loops: no harm."""
        return any(name.startswith(("LDL", "STL")) for loop in self.loops for name in loop)

    def instructions(self, elements: int, opcode: str = "") -> float:
        """Thread instructions of all loops per element; `elements` is what one pass of a program covers."""
        counted = sum(n for loop in self.loops for name, n in loop.items() if name.startswith(opcode))
        return counted * 32 * self.warps / elements


def record(call: Callable[[], object]) -> Launch:
    """Returns the launch that a call makes, without making it."""
    found: list[Launch] = []

    def run(kernel: JITFunction, *args: Any, grid: tuple[int, ...], warmup: bool, num_warps: int = 4, **named: Any):
        names = [parameter.name for parameter in kernel.params]
        found.append(Launch(kernel, grid, dict(zip(names, args, strict=False)) | named, num_warps))

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
            signature[parameter.name], multiple = POINTERS[value.dtype], value.data_ptr() % 16 == 0
        elif parameter.is_constexpr or (value == 1 and isinstance(value, int)):
            signature[parameter.name], constants[parameter.name], multiple = "constexpr", value, False
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
            multiple = isinstance(value, int) and value % 16 == 0
        if multiple:
            divisible[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, divisible)
    binary = triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": launch.warps})
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


class Case(NamedTuple):
    """A configuration of the kernels."""

    dtype: str = "bf16"
    states: int = STATES
    channels_last: bool = True
    capability: int = 90


EVERY = [Case(*values) for values in product(DTYPES, (8, 16), (True, False), CARDS)]


def calls(
    case: Case, batch: int = 1, channels: int = CHANNELS, length: int = LENGTH
) -> dict[str, Callable[[], object]]:
    """Returns a call of each kernel, with tensors laid out as in a mixer or, not `channels_last`, with steps last."""

    def sequence(width: int) -> Tensor:
        if case.channels_last:
            return torch.empty(batch, LENGTH, width, dtype=DTYPES[case.dtype]).transpose(1, 2)
        return torch.empty(batch, width, LENGTH, dtype=DTYPES[case.dtype])

    def one(reverse: bool) -> Direction:
        rank = CHANNELS // 32
        B, C = sequence(rank + 2 * case.states)[:, rank:].chunk(2, 1)
        A, (D, bias) = torch.empty(CHANNELS, case.states), torch.empty(2, CHANNELS)
        return Direction(ScanInputs(sequence(CHANNELS), sequence(CHANNELS), A, B, C, D, bias), reverse)

    directions, kernels = [one(False), one(True)], GpuKernels()
    x, z = sequence(2 * CHANNELS).chunk(2, 1)
    grad, weight, bias = sequence(CHANNELS), torch.empty(CHANNELS, TAPS), torch.empty(CHANNELS)
    onto = torch.empty_like(x)
    return {
        "scan_forward": lambda: kernels.scan(directions, z, True),
        "scan_backward": lambda: kernels.scan_backward(grad, directions, z, True),
        "conv_forward": lambda: kernels.conv(x, weight, bias, True, False),
        "conv_backward": lambda: kernels.conv_backward(grad, x, weight, bias, True, True, onto),
    }


def megabytes(name: str, launch: Launch, dtype: torch.dtype) -> tuple[float, float]:
    """Bytes of ReIDMamba-S at batch 64: those that no kernel can avoid, and those of this one."""
    states, tile = STATES, launch.arguments
    sequence, matrix = BATCH * CHANNELS * LENGTH * dtype.itemsize, BATCH * LENGTH * states * dtype.itemsize
    floats = BATCH * CHANNELS * LENGTH * 4
    least = {
        "scan_forward": 6 * sequence + 4 * matrix,
        "scan_backward": 11 * sequence + 8 * matrix,
        "conv_forward": 2 * sequence,
        "conv_backward": 4 * sequence,
    }[name]
    more = 0.0
    if name == "scan_forward":  # the output of the first direction, written and read
        more = 2 * floats
    elif name == "scan_backward":  # also u, delta and grad once more, the state of each chunk, and parts of dB and dC
        parts = 4 * BATCH * LENGTH * states * 4 * -(-CHANNELS // tile["CHANNELS"])
        more = 2 * floats + 5 * sequence + 2 * 2 * floats * states / tile["STEPS"] + parts
    return least / 1e6, (least + more) / 1e6


def table(capability: int) -> Iterator[str]:
    """The rows for ReIDMamba-S in bf16 at batch 64."""
    card, case = CARDS[capability], Case(capability=capability)
    for name, call in calls(case, BATCH).items():
        launch = record(call)
        code = compiled(launch, capability)
        directions = 2 if name.startswith("scan") else 1
        elements = launch.arguments["CHANNELS"] * launch.arguments["STEPS"] * directions
        instructions = code.instructions(elements)
        cycles = max(instructions, 8 * code.instructions(elements, "MUFU"))
        steps = BATCH * CHANNELS * LENGTH * directions / 32
        issue = steps * cycles / (card.multiprocessors * 4 * card.clock * 1e6)
        least, own = megabytes(name, launch, torch.bfloat16)
        yield (
            f"| {name} | {instructions:.0f} | {code.registers} | {code.spilled} | {code.shared / 1024:.1f} | "
            f"{code.programs(card)} x {code.warps} | {code.occupancy(card):.0%} | {least:.0f} | {own:.0f} | "
            f"{least / card.bandwidth / 1e3:.3f} | {own / card.bandwidth / 1e3:.3f} | {issue:.3f} |"
        )


COLUMNS = (
    "kernel", "instructions", "registers", "spilled bytes", "shared KiB", "programs x warps", "occupancy", "least MB",
    "own MB", "least memory ms", "own memory ms", "issue ms",
)  # fmt: skip


def check(case: Case) -> list[tuple[str, Code, str]]:
    """Compiles all kernels of a case; the last of each tuple says which limit is exceeded, or is empty."""
    found = []
    for name, call in calls(case).items():
        code = compiled(record(call), case.capability)
        problem = f"{code.spilled} bytes spilled, in a loop" if code.spills_in_loops() else ""
        if code.registers > MOST_REGISTERS[name]:
            problem = f"{code.registers} registers, the limit is {MOST_REGISTERS[name]}"
        found.append((name, code, problem))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", action="store_true", help="compile every configuration and check the limits")
    options = parser.parse_args()
    print(f"Triton {triton.__version__}; compiled, not run")
    if not options.every:
        for capability, card in CARDS.items():
            print(f"\n{card.name} (sm_{capability}), {card.bandwidth} TB/s, {card.clock} GHz\n")
            print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
            for row in table(capability):
                print(row, flush=True)
        return 0
    problems = 0
    print("\n| configuration | kernel | registers | spilled bytes | limits |\n|---|---|---|---|---|")
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for case, found in zip(EVERY, pool.map(check, EVERY), strict=True):
            layout = "channels last" if case.channels_last else "steps last"
            label = f"sm_{case.capability}, {case.dtype}, {case.states} states, {layout}"
            for name, code, problem in found:
                problems += bool(problem)
                print(f"| {label} | {name} | {code.registers} | {code.spilled} | {problem or 'kept'} |", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
