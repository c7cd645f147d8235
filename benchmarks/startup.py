"""Time of start-up and planning: how long a user waits before runs start.

    python benchmarks/startup.py [--runs 10000] [--repeats 5]

Commands run in their own processes. For comparison, the same interpreter imports the usual packages of a training
script. Planning runs in this process, over many seeds. `benchmarks/report.py` times the report.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

HARNESS = [sys.executable, "-m", "harness"]
COMMANDS = {
    "--help": ([*HARNESS, "--help"], 0.5),
    "list backbones": ([*HARNESS, "list", "backbones"], 1.0),
    "list datasets": ([*HARNESS, "list", "datasets"], 1.0),
    "plan, all on all": ([*HARNESS, "plan", "--device", "cpu", "--from-scratch"], 1.0),
    "profile --dry-run": ([*HARNESS, "profile", "--device", "cpu", "--dry-run"], 1.0),
    "alternative: import torch, torchvision": ([sys.executable, "-c", "import torch, torchvision"], None),
    "alternative: import torch, timm, ray, mlflow": ([sys.executable, "-c", "import torch, timm, ray, mlflow"], None),
}


def started(command: list[str], place: str) -> float:
    """Returns the seconds of one process."""
    extra = ["--results", place] if {"plan", "profile"} & set(command) else []
    before = time.perf_counter()
    done = subprocess.run([*command, *extra], cwd=REPOSITORY, capture_output=True, text=True)
    seconds = time.perf_counter() - before
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    return seconds


def planned(runs: int, place: Path) -> Callable[[], int]:
    """Returns a function that plans at least ``runs`` runs and returns their number."""
    from harness.planning import plan
    from harness.planning.request import Request

    cells = len(plan.build(Request(results=place, device="cpu", from_scratch=True)))
    request = Request(results=place, device="cpu", from_scratch=True, seeds=tuple(range(-(-runs // cells))))
    return lambda: len(plan.build(request))


def main() -> None:
    """Prints medians, the fastest and slowest times, and the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    print(f"Python {platform.python_version()}, {chosen.repeats} repeats in turns")
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="benchmark-startup-") as place:
        for _ in range(chosen.repeats):
            for name, (command, _) in COMMANDS.items():
                times[name].append(started(command, place))
        for name, (_, limit) in COMMANDS.items():
            line(name, times[name], limit)
        work = planned(chosen.runs, Path(place))
        spent, number = [], 0
        for _ in range(chosen.repeats):
            before = time.perf_counter()
            number = work()
            spent.append(time.perf_counter() - before)
        line(f"plan {number:,} runs", spent, 2.0)


def line(name: str, times: list[float], limit: float | None) -> None:
    """Prints one line of the table."""
    median = statistics.median(times)
    verdict = "" if limit is None else f"   limit {limit:.1f} s: {'met' if median <= limit else 'MISSED'}"
    print(f"{name:<46} {median:6.2f} s  ({min(times):.2f} .. {max(times):.2f}){verdict}", flush=True)


if __name__ == "__main__":
    main()
