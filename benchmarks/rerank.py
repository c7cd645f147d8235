"""Time and memory of k-reciprocal re-ranking at the size of Market-1501.

    python -m benchmarks.rerank [--queries 3368] [--gallery 15913] [--dim 3456] [--identities 751]
                             [--cameras 6] [--threads 2] [--device cuda]

For the size of MSMT17, pass `--queries 11659 --gallery 82161 --dim 768 --identities 3060 --cameras 15`.

Features are clustered by identity, so that the reciprocal sets are as large as those of a trained model.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from benchmarks.machine import describe, peak_memory, reset_peak_memory, resident_memory
from benchmarks.ranking import clustered_features, timed
from harness.metrics import evaluate_distances, evaluate_ranking, rerank


def main() -> None:
    """Runs the benchmark and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15_913)
    parser.add_argument("--dim", type=int, default=3456)
    parser.add_argument("--identities", type=int, default=751)
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)

    generator = np.random.default_rng(0)
    counts = options.identities, options.cameras
    pids, camids = (generator.integers(n, size=options.queries + options.gallery) for n in counts)
    features = clustered_features(pids, options.dim, seed=1).to(device)
    query, gallery = features[: options.queries], features[options.queries :]
    labels = [part for values in (pids, camids) for part in (values[: options.queries], values[options.queries :])]

    print(describe(options.threads, device))
    print(f"{options.queries} queries x {options.gallery} gallery x {options.dim} dimensions")
    before = evaluate_ranking(query, gallery, *labels)
    rerank(query[:50], gallery[:500])
    cpu = torch.device("cpu")
    resident = resident_memory(cpu)
    reset_peak_memory(cpu)
    seconds, distances = timed(lambda: rerank(query, gallery, metric="cosine"), device)
    peak = peak_memory(cpu)
    after = evaluate_distances(distances, *labels)
    print(
        f"re-ranking {seconds:.1f} s   peak memory of the process {peak / 1e9:.2f} GB, "
        f"{(peak - resident) / 1e9:.2f} GB above the memory before   "
        f"mAP {before.mAP:.4f} -> {after.mAP:.4f}   rank-1 {before.rank(1):.4f} -> {after.rank(1):.4f}"
    )


if __name__ == "__main__":
    main()
