"""Images: counts of the record against its own scores and the card, and the fingerprint against the reader's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.reporting.others.findings import Finding, Subject, doubtful, unchecked, wrong
from harness.reporting.rows import fingerprint


def check(subject: Subject) -> Iterator[Finding]:
    """Every dataset that the run read."""
    record = subject.record
    if record["source"] == "profile":  # random images
        return
    data = {record["spec"]["dataset"]: record["data"], **(record["data"].get("evaluated") or {})}
    for name, block in data.items():
        if block.get("generated"):
            yield unchecked("Counts and fingerprint, because the images are generated.")
        else:
            yield from _counts(subject, name, block)
            yield from _fingerprint(subject, name)
        yield from _scored(record, name, block)


def _counts(subject: Subject, name: str, block: Mapping[str, Any]) -> Iterator[Finding]:
    """Images, identities and cameras of each split, against the card."""
    card, splits = subject.datasets.get(name), block.get("splits") or {}
    if card is None or not card.expected:
        why = "there is no card of this dataset here" if card is None else "its card has no counts"
        yield unchecked(f"The counts of {name}, because {why}.")
        return
    if not splits and subject.record["status"] == "ok":
        yield unchecked(f"The counts of {name}, because the record has none.")
    for split, counts in splits.items():
        expected = card.expected.get(split)
        for kind, count in counts.items():
            if expected and count != (wanted := getattr(expected, kind, count)):
                yield doubtful(f"{name}: {split} has {count:,} {kind}, the card expects {wanted:,}.")


def _scored(record: Mapping[str, Any], name: str, block: Mapping[str, Any]) -> Iterator[Finding]:
    """Query and gallery of each evaluation, against the counts of the splits."""
    splits = block.get("splits") or {}
    for evaluation in record["evaluations"]:
        if evaluation["dataset"] != name:
            continue
        for split, key in (("query", "n_query"), ("gallery", "n_gallery")):
            images = (splits.get(split) or {}).get("images")
            if images is not None and images != evaluation[key]:
                yield wrong(f"{name}: {key} is {evaluation[key]:,}, but the {split} split has {images:,} images.")
                return


def _fingerprint(subject: Subject, name: str) -> Iterator[Finding]:
    """The hash of names, sizes, identities and cameras of the files, against the reader's own records."""
    own, found = subject.fingerprints.get(name), fingerprint(subject.record["spec"], name)
    if not own and found:
        yield unchecked(f"The fingerprint of {name}, {found[:12]}, because you have no records of this dataset.")
    elif found and own and found not in own:
        yield doubtful(f"{name}: the files differ from yours; fingerprint {found[:12]}, yours {min(own)[:12]}.")
