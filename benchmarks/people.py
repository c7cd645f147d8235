"""Compares generated people with photographs: mAP of a colour histogram, of untrained and of trained networks.

    python -m benchmarks.people [--real DATA_ROOT] [--seeds 0,1,2] [--backbones dummy,reidmamba,transreid,bot]

It scores the stand-in of CUHK03 (detected) of `--preset demo` and, with `--real`, the same number of photographs and
people, with the recipe and build options of the preset. `--real` needs CUHK03 in any layout of `cuhk03-detected`.

Seed N trains with seed N, generates stand-in N, and chooses photographs with numpy's `default_rng(N)`: `choice` without
replacement of 150 training identities, then of 80 test identities, among those with enough images in both cameras,
sorted by label; for each split and camera the first images by path. The subset is a temporary folder of links.
It takes about two minutes on one core per side and seed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np

import harness
from datasets.synthetic import LAYOUTS, SCALES, Scale, generate
from datasets.synthetic.layouts import FOLDERS
from harness import registry
from harness.cards import read_toml
from harness.contracts import Item
from harness.errors import DataError

DATASET = "cuhk03-detected"
PRESET = read_toml(Path(harness.__file__).parent / "spec" / "presets" / "demo.toml")
Need = dict[tuple[str, int], int]  # images of each identity, by split and camera
Scores = dict[tuple[str, bool], float]  # mAP in percent, by backbone and whether it was trained


def needs(scale: Scale) -> list[tuple[Need, int]]:
    """Returns the images that an identity must have, and the number of such identities; training before test."""
    images: dict[tuple[bool, int], Counter[tuple[str, int]]] = defaultdict(Counter)
    for file in LAYOUTS[DATASET].plan(scale, 0).files:
        images[file.split != "train", file.seen.pid][file.split, file.seen.camid] += 1
    kinds = Counter((test, tuple(sorted(need.items()))) for (test, _), need in images.items())
    return [(dict(need), count) for (_, need), count in sorted(kinds.items())]


def choose(data_root: Path, scale: Scale, seed: int) -> Iterator[tuple[str, Item]]:
    """Yields the photographs of subset ``seed`` with their splits.

    Raises:
        DataError: fewer people than needed have enough images.
    """
    splits = registry.dataset(DATASET).load(data_root)
    rng = np.random.default_rng(seed)
    for need, count in needs(scale):
        held: dict[int, dict[tuple[str, int], list[Item]]] = defaultdict(lambda: defaultdict(list))
        for split in dict.fromkeys(split for split, _ in need):
            for item in getattr(splits, split):
                held[item.pid][split, item.camid].append(item)
        fit = sorted(pid for pid, images in held.items() if all(len(images[key]) >= need[key] for key in need))
        if len(fit) < count:
            raise DataError(f"{splits.root}: {len(fit)} identities have {need} images; {count} are needed.")
        for pid in sorted(rng.choice(fit, count, replace=False).tolist()):
            for key, number in need.items():
                yield from ((key[0], item) for item in sorted(held[pid][key])[:number])


def link_photographs(data_root: Path, scale: Scale, seed: int, target: Path) -> None:
    """Writes links to the photographs of subset ``seed`` below ``target``, in the layout of the stand-in."""
    folder = target / LAYOUTS[DATASET].folder
    for number, (split, item) in enumerate(choose(data_root, scale, seed), start=1):
        link = folder / FOLDERS[split] / f"{item.pid:04d}_c{item.camid + 1}_{number}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(item.path).absolute())


def score(data_root: Path, backbones: str, seed: int, results: Path, overrides: list[str]) -> Scores:
    """Runs the demo recipe on the dataset below ``data_root`` and returns the scores of its records."""
    command = [sys.executable, "-m", "harness", "run", "--backbones", backbones, "--datasets", DATASET]
    command += ["--recipe", PRESET["recipe"], "--device", "cpu", "--from-scratch", "--seeds", str(seed)]
    command += ["--data-root", str(data_root), "--results", str(results), "--cache", str(results / "cache")]
    command += ["--report", str(results / "report.md"), "--scheduler", "inline", "--no-mlflow", "--cpus-per-run", "1"]
    command += ["--allow-count-mismatch"]  # the card expects the whole dataset
    for backbone, options in PRESET["options"].items():
        for key, value in options.items():
            command += ["--option", f"{backbone}.{key}={json.dumps(value) if isinstance(value, bool) else value}"]
    for override in overrides:
        command += ["--set", override]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-3000:]}")
    scores: Scores = {}
    for record in map(json.loads, (path.read_text() for path in results.rglob("record.json"))):
        for row in record["evaluations"]:
            if not row["flip"]:
                trained = row["trained"] and record["spec"]["backbone"] != "dummy"
                scores[record["spec"]["backbone"], trained] = 100 * row["mAP"]
    return scores


def main() -> int:
    """Prints the table; the exit code is 1 if a mean of the stand-in is not within a factor of 2 of the photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, metavar="DATA_ROOT", help="data root with CUHK03 (detected)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--backbones", default="dummy,reidmamba,transreid,bot")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe key, as for `run`")
    given = parser.parse_args()
    sides = ["stand-in", *(["photographs"] if given.real else [])]
    found: dict[str, list[Scores]] = {side: [] for side in sides}
    generated = PRESET["generate"]
    for seed in map(int, given.seeds.split(",")):
        for side in sides:
            with tempfile.TemporaryDirectory() as folder:
                data_root = Path(folder) / "data"
                if side == "photographs":
                    link_photographs(given.real, SCALES[generated["scale"]], seed, data_root)
                else:
                    generate(data_root, layouts=[DATASET], scale=generated["scale"], seed=seed, size=generated["size"])
                found[side].append(score(data_root, given.backbones, seed, Path(folder) / "results", given.set))
            values = ", ".join(
                f"{name}{' trained' * trained} {value:.1f}" for (name, trained), value in found[side][-1].items()
            )
            print(f"seed {seed}, {side}: {values}", flush=True)
    print(f"\nmAP in percent, mean over seeds {given.seeds} (minimum to maximum)")
    print(f"| | {' | '.join(sides)} |\n|---|{'---|' * len(sides)}")
    far = False
    for key in sorted(found[sides[0]][0], key=lambda key: (key[1], key[0])):
        values = {side: [scores[key] for scores in found[side]] for side in sides}
        cells = [f"{mean(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in values.values()]
        name = "colour histogram" if key[0] == "dummy" else f"{key[0]}, {'trained' if key[1] else 'untrained'}"
        print(f"| {name} | {' | '.join(cells)} |")
        means = [mean(v) for v in values.values()]
        far |= max(means) > 2 * min(means)
    return int(far)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
