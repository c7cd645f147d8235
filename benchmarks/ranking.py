"""Cost of the ranking metrics at the size of MSMT17, against the matrix product alone.

    python -m benchmarks.ranking [--lists DIR] [--dim 3456] [--threads 2] [--queries 11659]
                                [--repeats 3] [--device cuda]

`--lists` names the folder with MSMT17's list_query.txt and list_gallery.txt; without it, identities and cameras are
drawn with the same counts. Two kinds of features: `random`, as bad as can be (every negative competes), and `trained`,
clustered so that mAP is about that of a trained model. Wants about 4 GB of memory at full size.
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


def random_features(pids: np.ndarray, dim: int, seed: int) -> torch.Tensor:
    """Draws independent features [n, dim]."""
    return torch.randn(len(pids), dim, generator=torch.Generator().manual_seed(seed))


def clustered_features(pids: np.ndarray, dim: int, seed: int) -> torch.Tensor:
    """Draws features [n, dim] around one centre an identity, within 48 directions."""
    shared, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    centres = torch.randn(N_IDENTITIES, 48, generator=shared)
    directions = torch.randn(48, dim, generator=shared)
    return (centres[torch.from_numpy(pids)] + 1.0 * torch.randn(len(pids), 48, generator=generator)) @ directions


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Returns seconds and result of one call."""
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def shown(seconds: list[float]) -> str:
    """Writes all repetitions, in order."""
    return ", ".join(f"{value:.2f}" for value in seconds)


def product(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """Multiplies queries and gallery in blocks of 256 MB, keeping nothing."""
    size = max(1, min(len(query), 2**26 // len(gallery)))
    buffer = torch.empty(size, len(gallery), device=query.device)
    for start in range(0, len(query), size):
        rows = query[start : start + size]
        torch.mm(rows, gallery.T, out=buffer[: len(rows)])


def main() -> None:
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=Path, help="folder with list_query.txt and list_gallery.txt of MSMT17")
    parser.add_argument("--dim", type=int, default=3456)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queries", type=int, default=N_QUERY, help="use the first queries only")
    parser.add_argument("--repeats", type=int, default=1, help="product and evaluation in turn, so many times")
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
    print(f"{len(query_pids)} queries x {len(gallery_pids)} gallery x {options.dim} dimensions, ", end="")
    print(f"identities and cameras {'from ' + options.lists.name if options.lists else 'drawn'}")
    for kind, draw in (("random", random_features), ("trained", clustered_features)):
        query = draw(query_pids, options.dim, seed=1).to(device)
        gallery = draw(gallery_pids, options.dim, seed=2).to(device)
        evaluate_ranking(query[:64], gallery[:2048], labels[0][:64], labels[1][:2048], labels[2][:64], labels[3][:2048])
        alone, whole = [], []
        for _ in range(options.repeats):
            alone.append(timed(lambda query=query, gallery=gallery: product(query, gallery), device)[0])
            before = resident_memory(device)
            reset_peak_memory(device)
            seconds, result = timed(
                lambda query=query, gallery=gallery: evaluate_ranking(query, gallery, *labels), device
            )
            whole.append(seconds)
            extra = peak_memory(device) - before
        print(
            f"{kind}\n  product     {shown(alone)} s\n  evaluation  {shown(whole)} s\n"
            f"  ratio of the shortest {min(whole) / min(alone):.3f}\n"
            f"  memory above the features {extra / 1e9:.2f} GB\n"
            f"  mAP {result.mAP:.6f}   rank-1 {result.rank(1):.6f}   queries with ties {result.tied_queries}   "
            f"same-camera pairs ignored {result.n_same_camera}",
            flush=True,
        )
        del query, gallery


if __name__ == "__main__":
    main()
