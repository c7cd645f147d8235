"""Removes secrets of URLs and environment variables, and control characters, from text to print or store."""

from __future__ import annotations

import os
import re

SECRET = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE", re.IGNORECASE)
"""Names of environment variables whose values are secrets."""

SHORTEST = 6
"""Minimum length of a secret; shorter values are words like `on`."""


def mask(text: str) -> str:
    """Replaces user, password and token of URLs, and values of environment variables with secret names, by `***`."""
    text = re.sub(r"(//)[^/\s]*@", r"\1***@", text)
    text = re.sub(r"([?&][\w.-]*(?:token|key|password|secret|signature)=)[^&\s]*", r"\1***", text, flags=re.IGNORECASE)
    secrets = [
        v for name, v in os.environ.items() if SECRET.search(name) and len(v) >= SHORTEST and not os.path.exists(v)
    ]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def readable(text: str) -> str:
    """Returns text with control characters and invalid Unicode escaped; line breaks and tabs are kept."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
