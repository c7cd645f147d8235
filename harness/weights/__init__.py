"""Weight files: how they are found, checked, fetched and read, and how a module loads them.

Plug-ins import `load_state`, `strict_load` and `unwrap` from here. Nothing here imports torch before a file is read.
"""

from harness.weights.start import checksum, fetch, identity, locate, wanted
from harness.weights.state_dicts import check_kind, load_state, strict_load, unwrap

__all__ = [
    "check_kind",
    "checksum",
    "fetch",
    "identity",
    "load_state",
    "locate",
    "strict_load",
    "unwrap",
    "wanted",
]
