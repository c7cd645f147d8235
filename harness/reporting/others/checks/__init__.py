"""Checks of a record of somebody else; each is a function `Subject -> findings`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.reporting.others.checks import costs, images, origin, scores
from harness.reporting.others.findings import Finding, Subject

CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (scores.check, images.check, costs.check, origin.check)
