"""Checks the Triton kernels on this GPU and compares their speed with that of mamba-ssm and causal-conv1d.

    python benchmarks/gpu_scan.py --install     installs the two packages if missing (minutes), then measures
    python benchmarks/gpu_scan.py               measures with the installed packages

It has three parts:

- values and gradients of the Triton kernels, compared with plain PyTorch in float64
- time and memory of the operators alone
- time and memory of ReIDMamba-S: inference and training step

Implementations take turns in one process on one GPU. Times are medians over all turns, of plain calls and of a CUDA
graph of the same call, which has no launch costs. Memory is the peak allocated by PyTorch. The last lines say whether
the targets are met: inference 1.5 times and training step 1.3 times the throughput of mamba-ssm's kernels, with no
higher peak memory. The exit code is 1 if they are not met.
"""

import argparse
import gc
import importlib.util
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from backbones.selective_scan import (
    MixerWeights,
    ScanInputs,
    available_implementations,
    bidirectional_mixer,
    bidirectional_scan,
    causal_conv1d,
    use_implementation,
)
from harness.system import gpu

PACKAGES = {"causal_conv1d": "causal-conv1d>=1.4.0", "mamba_ssm": "mamba-ssm>=2.2.2"}
INFERENCE_AIM, TRAINING_AIM = 1.5, 1.3
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def install() -> None:
    """Builds the two packages against the PyTorch that is installed."""
    for module, requirement in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            print(f"installing {requirement} ...", flush=True)
            # The build needs these tools, and must use the installed PyTorch instead of installing its own.
            tools = ["setuptools", "wheel", "packaging", "ninja"]
            subprocess.run([sys.executable, "-m", "pip", "install", "-q", *tools], check=True)
            command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", requirement]
            # mamba-ssm after 2.3.2 builds its scan only if asked.
            subprocess.run(command, check=True, env={**os.environ, "MAMBA_KEEP_CUDA_BUILD": "TRUE"})
    importlib.invalidate_caches()


def directions(batch: int, channels: int, length: int, states: int, dtype: torch.dtype, gradients: bool):
    """Returns random tensors of both directions and z, with the memory layout of a linear layer's output."""
    generator = torch.Generator("cuda").manual_seed(0)

    def sequence(width: int) -> Tensor:
        values = torch.randn(batch, length, width, generator=generator, device="cuda").to(dtype)
        return values.transpose(1, 2).requires_grad_(gradients)

    def parameter(values: Tensor) -> Tensor:
        return values.cuda().requires_grad_(gradients)

    def one() -> ScanInputs:
        A = -torch.arange(1.0, states + 1).repeat(channels, 1)
        return ScanInputs(
            sequence(channels), sequence(channels), parameter(A), sequence(states), sequence(states),
            parameter(torch.ones(channels)), parameter(torch.full((channels,), -4.0)),
        )  # fmt: skip

    return one(), one(), sequence(channels)


def leaves(*parts: ScanInputs | Tensor) -> list[Tensor]:
    return [tensor for part in parts for tensor in ([part] if isinstance(part, Tensor) else part)]


def mixer(batch: int, channels: int, length: int, states: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Returns random x and z, the halves of one projection, and the weights of both directions, as in a mixer."""
    generator = torch.Generator("cuda").manual_seed(1)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator, device="cuda")).requires_grad_()

    def one() -> MixerWeights:
        rank = channels // 32
        A = -torch.arange(1.0, states + 1, device="cuda").repeat(channels, 1)
        return MixerWeights(
            normal(channels, 4), normal(channels), normal(rank + 2 * states, channels, scale=channels**-0.5),
            normal(channels, rank), normal(channels), A.requires_grad_(), normal(channels),
        )  # fmt: skip

    x, z = torch.randn(batch, length, 2 * channels, generator=generator, device="cuda").to(dtype).chunk(2, dim=-1)
    return x.transpose(1, 2).requires_grad_(), z.transpose(1, 2).requires_grad_(), *one(), *one()


def mix(x: Tensor, z: Tensor, *weights: Tensor, implementation: str = "auto") -> Tensor:
    half = len(weights) // 2
    forward, backward = MixerWeights(*weights[:half]), MixerWeights(*weights[half:])
    return bidirectional_mixer(x, z, forward, backward, implementation=implementation)


def largest_error(dtype: torch.dtype) -> float:
    """Returns the largest relative error (in the norm) of Triton's output and gradients, compared with float64."""
    forward, backward, z = directions(2, 200, 141, 16, dtype, True)
    exact = [tensor.detach().double().requires_grad_() for tensor in leaves(forward, backward, z)]
    grad = torch.randn_like(z)
    out = bidirectional_scan(forward, backward, z=z, implementation="triton")
    expected = bidirectional_scan(ScanInputs(*exact[:7]), ScanInputs(*exact[7:14]), z=exact[14], implementation="torch")
    found = [out, *torch.autograd.grad(out, leaves(forward, backward, z), grad)]
    wanted = [expected, *torch.autograd.grad(expected, exact, grad.double())]
    for reverse in (False, True):
        x, weight, bias = forward.u, torch.randn(200, 4, device="cuda"), torch.randn(200, device="cuda")
        weight.requires_grad_(), bias.requires_grad_()
        inputs = [x, weight, bias]
        doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
        out = causal_conv1d(*inputs, reverse=reverse, implementation="triton")
        expected = causal_conv1d(*doubles, reverse=reverse, implementation="torch")
        found += [out, *torch.autograd.grad(out, inputs, grad)]
        wanted += [expected, *torch.autograd.grad(expected, doubles, grad.double())]
    if dtype == torch.float32:  # between its parts, the mixer rounds to the dtype of its input
        tensors = mixer(2, 192, 141, 16, dtype)
        doubles = [tensor.detach().double().requires_grad_() for tensor in tensors]
        out, expected = mix(*tensors, implementation="triton"), mix(*doubles, implementation="torch")
        grad = torch.randn_like(out)
        found += [out, *torch.autograd.grad(out, tensors, grad)]
        wanted += [expected, *torch.autograd.grad(expected, doubles, grad.double())]
    return max(((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, wanted, strict=True))


def clock(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Returns the median time of one call in milliseconds, and the peak of additional memory in MiB."""
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before, times = torch.cuda.memory_allocated(), []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times), (torch.cuda.max_memory_allocated() - before) / 2**20


def graphed(job: Callable[[], object]) -> Callable[[], object] | str:
    """Returns a call that replays a CUDA graph of a job, or the reason why there is none."""
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                job()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            job()
        return graph.replay
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"


def compare(label: str, job: Callable[[], object], names: list[str], options) -> dict[str, tuple[float, float]]:
    """Measures one job with each implementation in turn, and prints one line per implementation."""
    plain: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    replayed: dict[str, list[float] | str] = {name: [] for name in names}
    for _ in range(options.turns):
        for name in names:
            with use_implementation(name):
                plain[name].append(clock(job, options.repeats))
                graph = graphed(job)
            times = replayed[name]
            if isinstance(graph, str) or isinstance(times, str):
                replayed[name] = graph if isinstance(graph, str) else times
            else:
                times.append(clock(graph, options.repeats)[0])
            del graph
    medians = {}
    for name, runs in plain.items():
        medians[name] = (statistics.median(t for t, _ in runs), max(m for _, m in runs))
        times = replayed[name]
        graph_time = times if isinstance(times, str) else f"{statistics.median(times):.3f}"
        print(f"| {label} | {name} | {medians[name][0]:.3f} | {graph_time} | {medians[name][1]:.0f} |", flush=True)
    return medians


def operator_jobs(options, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Returns jobs for the scan and the mixer of one block, with the sizes of ReIDMamba-S."""
    forward, backward, z = directions(options.batch, 768, 140, 16, dtype, True)
    grad = torch.randn_like(z)

    def infer() -> None:
        with torch.no_grad():
            bidirectional_scan(forward, backward, z=z)

    def train() -> None:
        torch.autograd.grad(bidirectional_scan(forward, backward, z=z), leaves(forward, backward, z), grad)

    tensors = mixer(options.batch, 768, 140, 16, dtype)

    def train_mixer() -> None:
        torch.autograd.grad(mix(*tensors), tensors, grad)

    return {"scan forward": infer, "scan forward + backward": train, "mixer forward + backward": train_mixer}


def model_jobs(options, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Returns jobs for inference and one training step of ReIDMamba-S, with autocast for half precision."""
    from harness import registry

    size = (256, 128)
    model = registry.backbone("reidmamba").build(num_classes=751, num_cameras=6, image_size=size).cuda()
    images = torch.randn(options.batch, 3, *size, device="cuda")
    cameras = (torch.arange(options.batch) % 6).pin_memory()  # on the CPU, where their range is checked
    labels = torch.arange(options.batch, device="cuda") % 751
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)
    precision = torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32)

    def infer() -> None:
        model.eval()
        with torch.inference_mode(), precision:
            model(images, cameras)

    def train() -> None:
        model.train()
        with precision:
            out = model(images, cameras)
            loss = sum(torch.nn.functional.cross_entropy(logits.float(), labels) for logits in out.logits)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return {"model inference": infer, "model training step": train}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="install mamba-ssm and causal-conv1d if missing")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    parser.add_argument("--repeats", type=int, default=20, help="calls per turn")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    if not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
        print("This benchmark needs a GPU, but PyTorch finds none, or TRITON_INTERPRET=1 is set.", file=sys.stderr)
        return 2
    if options.install:
        install()
    states = available_implementations()
    versions = {name: _version(name) for name in ("torch", "triton", "mamba-ssm", "causal-conv1d")}
    driver = next(iter(gpu.ask("driver_version")), "unknown")
    setup = f"{torch.cuda.get_device_name()}, driver {driver}, " + ", ".join(f"{n} {v}" for n, v in versions.items())
    print(setup)
    for name, state in states.items():
        print(f"{name}: {state}")
    if states["triton"] != "available":
        print("This benchmark needs Triton.", file=sys.stderr)
        return 2

    correct = True
    for name, dtype in DTYPES.items():
        error, limit = largest_error(dtype), 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
        correct &= error < limit
        print(f"Triton against float64, {name}: largest relative error {error:.1e} (limit {limit:.1e})")

    torch.set_float32_matmul_precision("high")  # TF32, which convolutions use by default
    names = [name for name in ("triton", "mamba_ssm") if states[name] == "available"]
    results = {}
    for jobs in (operator_jobs, model_jobs):
        print(f"\n{setup}")
        print(f"batch {options.batch}, {options.precision}, 256 x 128, {options.turns} x {options.repeats} calls\n")
        print("| job | implementation | median ms | as a CUDA graph, ms | peak MiB above its inputs |")
        print("|---|---|---|---|---|")
        for label, job in jobs(options, DTYPES[options.precision]).items():
            results[label] = compare(label, job, names, options)
    if "mamba_ssm" not in names:
        print(f"\nThe targets cannot be checked without mamba-ssm: {states['mamba_ssm']}")
        return 1
    met = correct
    for label, aim in (("model inference", INFERENCE_AIM), ("model training step", TRAINING_AIM)):
        (ours, memory), (theirs, their_memory) = results[label]["triton"], results[label]["mamba_ssm"]
        reached = theirs / ours >= aim and memory <= their_memory
        met &= reached
        print(f"{label}: {theirs / ours:.2f} times the throughput (aim {aim}), {memory / their_memory:.2f} of the "
              f"peak memory (aim <= 1): {'met' if reached else 'NOT met'}")  # fmt: skip
    if _version("causal-conv1d") == "absent":
        print("causal-conv1d is absent: the other side ran its convolution in plain PyTorch, the comparison is unfair.")
        met = False
    return 0 if met else 1


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    sys.exit(main())
