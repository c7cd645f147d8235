"""Weight files: find, check, download and read them, and load them into modules.

Plug-ins import `load_state`, `strict_load` and `unwrap` from here. torch is imported only when a file is read.
"""

from harness.weights import published
from harness.weights.start import checksum, fetch, identity, kind_of_start, locate, wanted
from harness.weights.state_dicts import check_kind, load_state, strict_load, unwrap

__all__ = [
    "check_kind",
    "checksum",
    "fetch",
    "identity",
    "kind_of_start",
    "load_state",
    "locate",
    "published",
    "strict_load",
    "unwrap",
    "wanted",
]
