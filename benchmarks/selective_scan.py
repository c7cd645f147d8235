"""Compares the selective scan on this CPU with the reference formula and with other implementations.

    python benchmarks/selective_scan.py                     the table of backbones/selective_scan/README.md
    python benchmarks/selective_scan.py --shape 4 192 64 16 --repeats 3

The reference is ``selective_scan_ref`` of mamba-ssm if that package can be imported, otherwise the same formula below:
the discretised matrices as [B, D, L, N] tensors, a Python loop over the steps, and gradients by autograd. All forward
rows are measured without gradients. The other implementations are:

- `stepwise`: discretises inside the loop
- `compiled`: that loop with torch.compile
- `chunked`: the project's plain PyTorch implementation with its own backward pass

Each measurement runs in its own child process, so that peak memory is measured separately. Implementations take turns,
so that other load of the machine affects all of them; times are medians over all turns.
"""

import argparse
import functools
import json
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from backbones.selective_scan import implementation_for, selective_scan
from benchmarks.process import process_memory


def formula(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """The reference: discretises all matrices first, then runs the steps one by one."""
    delta = delta + delta_bias[:, None]
    delta = torch.nn.functional.softplus(delta) if delta_softplus else delta
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    h = torch.zeros_like(decay[:, :, 0])
    outputs = []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + drive[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, C[:, :, t]))
    y = torch.stack(outputs, dim=2) + u * D[:, None]
    return y * torch.nn.functional.silu(z)


def stepwise(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """The formula with the matrices of one step at a time."""
    delta = delta + delta_bias[:, None]
    delta = torch.nn.functional.softplus(delta) if delta_softplus else delta
    h, outputs = torch.zeros_like(u[:, :, :1] * A), []
    for d, x, b, c in zip(delta.unbind(2), (delta * u).unbind(2), B.unbind(2), C.unbind(2), strict=True):
        h = torch.exp(d[:, :, None] * A) * h + x[:, :, None] * b[:, None]
        outputs.append((h * c[:, None]).sum(2))
    return (torch.stack(outputs, dim=2) + u * D[:, None]) * torch.nn.functional.silu(z)


def function_of(who: str):
    """Returns the function to measure for a name."""
    ways = {
        "ours": lambda: selective_scan,
        "reference": lambda: reference()[0],
        "stepwise": lambda: stepwise,
        "compiled": lambda: torch.compile(stepwise, dynamic=False),
        "chunked": lambda: functools.partial(selective_scan, implementation="torch"),
    }
    return ways[who]()


def reference():
    """Returns the reference function and its name."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_ref
    except Exception:  # not installed, or without its compiled extension
        return formula, "reference formula"
    return selective_scan_ref, "mamba-ssm selective_scan_ref"


def tensors(shape, gradients):
    batch, channels, length, states = shape
    torch.manual_seed(0)
    values = {
        "u": torch.randn(batch, channels, length),
        "delta": torch.randn(batch, channels, length),
        "A": -torch.arange(1.0, states + 1).repeat(channels, 1),
        "B": torch.randn(batch, states, length),
        "C": torch.randn(batch, states, length),
        "D": torch.ones(channels),
        "z": torch.randn(batch, channels, length),
        "delta_bias": torch.full((channels,), -4.0),
    }
    return {name: value.requires_grad_(gradients) for name, value in values.items()}


def measure(who: str, shape: list[int], backward: bool, repeats: int, threads: int) -> dict:
    """Returns the seconds of each repeat after one warm-up, and the growth of the process's peak memory."""
    torch.set_num_threads(threads)
    function = function_of(who)
    # Loads and compiles code before the memory is measured.
    warm = function(**tensors([1, 2, 3, 2], True), delta_softplus=True)
    warm.sum().backward()
    values = tensors(shape, backward)
    grad = torch.randn(values["u"].shape)
    before, seconds = process_memory("VmHWM"), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        with torch.set_grad_enabled(backward):
            out = function(**values, delta_softplus=True)
            if backward:
                torch.autograd.grad(out, list(values.values()), grad)
        seconds.append(time.perf_counter() - start)
        del out
    return {"seconds": seconds[1:], "peak_mib": (process_memory("VmHWM") - before) / 2**20}


def in_child(who: str, options: argparse.Namespace, backward: bool) -> dict:
    command = [sys.executable, __file__, "--child", who, "--repeats", str(options.repeats if who == "ours" else 1)]
    command += ["--threads", str(options.threads), "--shape", *map(str, options.shape)]
    command += ["--backward"] if backward else []
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, default=[16, 768, 140, 16], metavar=("B", "D", "L", "N"))
    parser.add_argument("--repeats", type=int, default=7, help="measurements of our scan per turn; others have one")
    parser.add_argument("--turns", type=int, default=3, help="number of turns")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--ways", default="ours,reference,chunked,stepwise", help="implementations; `compiled` takes minutes more"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--backward", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.shape, options.backward, options.repeats, options.threads)))
        return
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numba"))
    ours = implementation_for("cpu", torch.float32)
    print(f"{processor()}, {options.threads} threads; Python {platform.python_version()}, {versions}")
    print(f'ours: "{ours}"; reference: {reference()[1]}; batch, channels, length, state: {options.shape}, float32\n')
    print("| | implementation | ms | ours is faster by | peak MiB | ours takes |")
    print("|---|---|---|---|---|---|")
    for backward, label in ((False, "forward"), (True, "forward + backward")):
        runs = {who: [] for who in options.ways.split(",")}
        for _ in range(options.turns):
            for who, found in runs.items():
                found.append(in_child(who, options, backward))
        seconds = {who: statistics.median(s for run in found for s in run["seconds"]) for who, found in runs.items()}
        peaks = {who: statistics.median(run["peak_mib"] for run in found) for who, found in runs.items()}
        for who in runs:
            print(
                f"| {label} | {who} | {1e3 * seconds[who]:.1f} | {seconds[who] / seconds['ours']:.1f} "
                f"| {peaks[who]:.0f} | {peaks['ours'] / peaks[who]:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
