"""Audits of a trained network: what its score hides, from its features or from changed images.

An audit is one file in `checks/`, and the name of the file is its name on the command line. It defines `AUDIT`, see
`harness.audits.audit.Audit`. Importing this package imports no audit and no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import unknown

if TYPE_CHECKING:
    from harness.audits.audit import Audit

DEFAULT, ALL = "default", "all"
"""Words in place of names: the audits that need few passes over the images, and all of them."""


def names() -> list[str]:
    """Returns the names of all audits, sorted."""
    found = pkgutil.iter_modules([str(Path(__file__).parent / "checks")])
    return sorted(module.name.replace("_", "-") for module in found)


def parse(checks: str | Iterable[str] | bool | None) -> tuple[str, ...]:
    """Returns the names of audits, each once and without aliases.

    Args:
        checks: a comma list or names, `default` or True, `all`; nothing for none.

    Raises:
        UsageError: there is no such audit.
    """
    if not checks:
        return ()
    words = [DEFAULT] if checks is True else checks.split(",") if isinstance(checks, str) else list(checks)
    known, found = names(), list[str]()
    for word in (word.strip() for word in words):
        if word not in (*known, DEFAULT, ALL):
            raise unknown("audit", word, [*known, DEFAULT, ALL])
        found += _defaults() if word == DEFAULT else known if word == ALL else [word]
    return tuple(dict.fromkeys(found))


def load(name: str) -> Audit:
    """Imports an audit by its name."""
    module = importlib.import_module(f"harness.audits.checks.{name.replace('-', '_')}")
    found: Audit = module.AUDIT
    return found


def _defaults() -> Sequence[str]:
    return [name for name in names() if load(name).default]
