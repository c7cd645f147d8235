"""Memory of this process, without importing torch, which needs memory itself."""

from pathlib import Path


def process_memory(key: str) -> int:
    """Returns the current ("VmRSS") or peak ("VmHWM") resident memory of this process in bytes (Linux).

    ``ru_maxrss`` is not used, because it includes the peak of the parent process.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}. Memory can only be measured on Linux.")
