"""Time and memory of the ranking metrics at the size of MSMT17, compared with the matrix product alone.

    python -m benchmarks.ranking [--lists DIR] [--features trained random separated] [--dim 768 3456] [--threads 2]
                                [--queries 11659] [--repeats 3] [--device cuda]

`--lists` is the folder with MSMT17's list_query.txt and list_gallery.txt; without it, identities and cameras are random
with the same counts. Product and evaluation take turns. The features are random:

- `trained`: a centre per identity in 256 directions, an offset per camera, and noise of different size per image, such
  that mAP is about 0.7, like that of a trained network
- `random`: independent of the identity, so that matches are anywhere in the ranking
- `separated`: as `trained` with a fifth of the noise, so that matches rank first

It needs about 4 GB of memory at full size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe, peak_memory, reset_peak_memory, resident_memory
from harness.metrics import evaluate_ranking

N_QUERY, N_GALLERY, N_IDENTITIES, N_CAMERAS = 11_659, 82_161, 3_060, 15
NOISE = 1.3
KINDS = ["trained", "random", "separated"]


def read_list(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads pids and zero-based camids from an MSMT17 list; the camera is the third part of the file name."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    pids = np.array([int(pid) for _, pid in lines])
    camids = np.array([int(Path(name).stem.split("_")[2]) - 1 for name, _ in lines])
    return pids, camids


def draw_list(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws pids and camids with MSMT17's counts, every identity at least once."""
    pids = np.concatenate([np.arange(N_IDENTITIES), generator.integers(N_IDENTITIES, size=n - N_IDENTITIES)])
    return pids, generator.integers(N_CAMERAS, size=n)


def draw_features(kind: str, pids: np.ndarray, camids: np.ndarray, dim: int, seed: int) -> torch.Tensor:
    """Draws features [n, dim] of the kind `trained`, `random` or `separated`."""
    if kind == "random":
        return torch.randn(len(pids), dim, generator=torch.Generator().manual_seed(seed))
    return clustered_features(pids, dim, seed, camids=camids, noise=NOISE if kind == "trained" else NOISE / 5)


def clustered_features(
    pids: np.ndarray,
    dim: int,
    seed: int,
    *,
    camids: np.ndarray | None = None,
    noise: float = 1.0,
    directions: int = 256,
) -> torch.Tensor:
    """Draws features [n, dim] around one centre per identity, shifted per camera, with noise of log-normal size."""
    shared, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    directions = min(dim, directions)
    centres = torch.randn(N_IDENTITIES, directions, generator=shared)
    offsets = 0.3 * torch.randn(N_CAMERAS, directions, generator=shared)
    basis = torch.randn(directions, dim, generator=shared)
    size = noise * torch.exp(0.5 * torch.randn(len(pids), 1, generator=generator))
    place = centres[torch.from_numpy(pids)] + size * torch.randn(len(pids), directions, generator=generator)
    return (place if camids is None else place + offsets[torch.from_numpy(camids)]) @ basis


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Returns seconds and result of one call."""
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def shown(seconds: list[float]) -> str:
    """Formats all repetitions in order."""
    return ", ".join(f"{value:.2f}" for value in seconds)


def product(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """Multiplies queries and gallery in blocks of 256 MB and discards the results."""
    size = max(1, min(len(query), 2**26 // len(gallery)))
    buffer = torch.empty(size, len(gallery), device=query.device)
    for start in range(0, len(query), size):
        rows = query[start : start + size]
        torch.mm(rows, gallery.T, out=buffer[: len(rows)])


def main() -> None:
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=Path, help="folder with list_query.txt and list_gallery.txt of MSMT17")
    parser.add_argument("--features", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--dim", type=int, nargs="+", default=[768, 3456])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queries", type=int, default=N_QUERY, help="number of queries to use, from the first")
    parser.add_argument("--repeats", type=int, default=1, help="repeats of product and evaluation, in turn")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)

    if options.lists:
        query_pids, query_camids = read_list(options.lists / "list_query.txt")
        gallery_pids, gallery_camids = read_list(options.lists / "list_gallery.txt")
    else:
        generator = np.random.default_rng(0)
        query_pids, query_camids = draw_list(N_QUERY, generator)
        gallery_pids, gallery_camids = draw_list(N_GALLERY, generator)
    query_pids, query_camids = query_pids[: options.queries], query_camids[: options.queries]
    labels = (query_pids, gallery_pids, query_camids, gallery_camids)

    print(describe(options.threads, device))
    print(f"{len(query_pids)} queries x {len(gallery_pids)} gallery images, ", end="")
    print(f"identities and cameras {'from ' + options.lists.name if options.lists else 'drawn'}")
    for dim in options.dim:
        for kind in options.features:
            query = draw_features(kind, query_pids, query_camids, dim, seed=1).to(device)
            gallery = draw_features(kind, gallery_pids, gallery_camids, dim, seed=2).to(device)
            print(f"{kind}, {dim} dimensions")
            compare(query, gallery, labels, options.repeats)


def compare(query: torch.Tensor, gallery: torch.Tensor, labels: tuple[np.ndarray, ...], repeats: int) -> None:
    """Times product and evaluation in turn and prints both."""
    device = query.device
    warm = labels[0][:64], labels[1][:32768], labels[2][:64], labels[3][:32768]
    evaluate_ranking(query[:64], gallery[:32768], *warm)
    alone, whole = [], []
    for _ in range(repeats):
        alone.append(timed(lambda: product(query, gallery), device)[0])
        before = resident_memory(device)
        reset_peak_memory(device)
        seconds, result = timed(lambda: evaluate_ranking(query, gallery, *labels), device)
        whole.append(seconds)
        extra = peak_memory(device) - before
    print(
        f"  product     {shown(alone)} s\n  evaluation  {shown(whole)} s\n"
        f"  ratio of the shortest {min(whole) / min(alone):.3f}\n"
        f"  memory above the features {extra / 1e9:.2f} GB\n"
        f"  mAP {result.mAP:.6f}   rank-1 {result.rank(1):.6f}   queries with ties {result.tied_queries}   "
        f"same-camera pairs ignored {result.n_same_camera}",
        flush=True,
    )


if __name__ == "__main__":
    main()
