"""What must not be shown or kept: secrets of URLs and of the environment, and letters that steer a terminal."""

from __future__ import annotations

import os
import re

SECRET = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE", re.IGNORECASE)
"""Names of environment variables whose values are secrets."""

SHORTEST = 6
"""Values with fewer letters are words like `on`."""


def mask(text: str) -> str:
    """Hides user, password and token of URLs, and the values of environment variables that are named like secrets."""
    text = re.sub(r"(//)[^/\s]*@", r"\1***@", text)
    text = re.sub(r"([?&][\w.-]*(?:token|key|password|secret|signature)=)[^&\s]*", r"\1***", text, flags=re.IGNORECASE)
    secrets = [
        v for name, v in os.environ.items() if SECRET.search(name) and len(v) >= SHORTEST and not os.path.exists(v)
    ]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def readable(text: str) -> str:
    """Text with control characters and what is no Unicode as escapes; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
