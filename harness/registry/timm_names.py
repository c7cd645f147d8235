"""Checks names of timm models before runs start. Importing timm takes seconds, so its source code is searched first."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

from harness.errors import suggestion

NAME = re.compile(r"\w+(\.[\w-]+)?", re.ASCII)


@functools.cache
def problem(model: str) -> str:
    """Returns why timm has no model of this name (with or without tag); empty if it has, or is not installed."""
    if not NAME.fullmatch(model):
        last = model.rpartition("/")[2]
        instead = f" Use timm:{last}." if NAME.fullmatch(last) and not _unknown(last) else ""
        return (
            f"'{model[:100]}' is not a valid timm name: names consist of letters, digits and '_', with an optional tag "
            f"after a dot. For models of the hub, pass only the timm name.{instead}"
        )
    return _unknown(model)


def _unknown(model: str) -> str:
    """Returns why timm does not know the name. Imports timm only if its source code does not contain the name."""
    models, quoted = _source()
    name, _, tag = model.partition(".")
    if not models or (name in models and (not tag or model in quoted)):
        return ""
    return _ask(name, tag)


@functools.cache
def _source() -> tuple[set[str], set[str]]:
    """Returns the names of timm's models and all quoted texts in their source code; nothing if it is not installed."""
    spec = importlib.util.find_spec("timm")
    folders = [Path(place) / "models" for place in (spec.submodule_search_locations or ())] if spec else []
    code = "\n".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.py"))
    models = {rest.partition("(")[0] for rest in code.split("@register_model\ndef ")[1:]}
    return models, set(code.replace("'", '"').split('"'))


def _ask(name: str, tag: str) -> str:
    import timm
    from timm.models import get_deprecated_models

    if new := get_deprecated_models().get(name):
        return f"timm renamed the model '{name}'. Use timm:{new}."
    if not timm.is_model(name):
        known = timm.list_models()
        near = f" Did you mean '{name.lower()}'?" if name.lower() in known else suggestion(name, known)
        return f"timm has no model '{name[:100]}'.{near} To list all models, call timm.list_models() in Python."
    tags = [full.partition(".")[2] for full in timm.list_pretrained(name)]
    if not tag or tag in tags:
        return ""
    near = suggestion(tag, tags)
    return f"The timm model '{name}' has no weights with the tag '{tag}'.{near} Known: {', '.join(tags) or 'none'}."
