"""One finding of a check, as `validate` prints it."""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = ("error", "warning", "info")
EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One finding: its level (`error`, `warning`, `info`), a sentence, and the first examples."""

    level: str
    sentence: str
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.sentence + (f" For example: {', '.join(self.examples)}." if self.examples else "")
