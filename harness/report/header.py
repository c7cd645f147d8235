"""The top of the page: what it is, what it rests on, how to make it again."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import PROTOCOL_VERSION
from harness.report import text
from harness.report.section import Context, Section, paragraphs

PRESETS = Path(__file__).parent.parent / "presets"


def build(context: Context) -> Section:
    """Title, counts and commands."""
    versions = sorted({r["protocol_version"] for r in context.material.records}) or [PROTOCOL_VERSION]
    protocol = f"Protocol {', '.join(map(text.escape, versions))}: only results of one protocol compare."
    made = "Made from the records in the results folder by `python -m harness report`; do not edit it by hand."
    parts = ["# Benchmarks", f"{made} {protocol}", _counts(context), _commands(context)]
    return Section(paragraphs(*parts))


def _counts(context: Context) -> str:
    records = context.material.records
    if not records:
        return (
            "**Nothing has been run here yet.** The command below plans every backbone on every dataset, runs what is "
            "not blocked, and writes this page anew. The published numbers at the end are what it will stand beside."
        )
    statuses = Counter(r["status"] for r in records)
    ended = ", ".join(f"{statuses[s]:,} {s}" for s in sorted(statuses, key=lambda s: (s != "ok", s)))
    backbones = len({r["spec"]["backbone"] for r in records})
    datasets = len({r["spec"]["dataset"] for r in records if r["source"] != "profile"})
    on = text.count(datasets, "dataset") if datasets else "random images"
    return f"{text.count(len(records), 'run')} ({ended}) of {text.count(backbones, 'backbone')} on {on}."


BEGIN = "python -m harness run --backbones all --datasets all --data-root DIR --weights-root DIR"


def _commands(context: Context) -> str:
    """One command a recipe, which makes its runs again; finished ones are not repeated."""
    by_recipe: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in context.material.records:
        if record["source"] == "trained":
            by_recipe[record["spec"]["recipe"]].append(record["spec"])
    commands = [_command(recipe, specs) for recipe, specs in sorted(by_recipe.items())]
    about = "To reproduce it (settings that a command does not name are in each record's `spec`):"
    if not commands:
        about, commands = "To begin:", [BEGIN]
    return paragraphs(about, "\n".join(f"    {command}" for command in commands))


def _command(recipe: str, specs: list[Mapping[str, Any]]) -> str:
    values = {
        name: ",".join(str(v) for v in sorted({spec[key] for spec in specs}))
        for name, key in (("--backbones", "backbone"), ("--datasets", "dataset"), ("--seeds", "seed"))
    }
    preset = (PRESETS / f"{recipe}.toml").is_file()
    pretrained = any(spec.get("pretrained", "none") != "none" for spec in specs)
    start = ["--weights-root", "DIR"] if pretrained else ["--from-scratch"]
    chosen = ["--preset", recipe] if preset else ["--recipe", recipe, "--data-root", "DIR", *start]
    words = ["python", "-m", "harness", "run", *(word for pair in values.items() for word in pair), *chosen]
    return " ".join(shlex.quote(_plain(word)) for word in words)


def _plain(word: str) -> str:
    """One line; a line break would end the code block."""
    return "".join(c if c.isprintable() else "?" for c in word)
