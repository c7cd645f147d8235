"""Memory of this process, without importing torch, which would take a share of its own."""

from pathlib import Path


def process_memory(key: str) -> int:
    """Bytes this process holds now ("VmRSS") or held at most ("VmHWM"), as Linux counts them.

    Not ``ru_maxrss``: that one begins with the peak of the process which started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}; memory can only be measured on Linux.")
