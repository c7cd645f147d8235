"""A finding of a check, as printed by `validate`."""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = ("error", "warning", "info")
EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: `error`, `warning` or `info`.
        sentence: what was found.
        examples: the first examples.
    """

    level: str
    sentence: str
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.sentence + (f" For example: {', '.join(self.examples)}." if self.examples else "")
