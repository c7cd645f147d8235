"""Images: counts of the record against its own scores and the card, and the fingerprint against the reader's files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.reporting.others.findings import Finding, Subject, doubtful, unchecked, wrong
from harness.reporting.rows import fingerprint

COUNTS = ("n_query", "n_valid", "n_gallery")


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
        if not record["spec"].get("holdout"):
            yield from _same_queries(subject, name)


def counts(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], set[tuple[int, ...]]]:
    """Numbers of queries, valid queries and gallery images of the reader's records, by dataset and fingerprint."""
    found: dict[tuple[str, str], set[tuple[int, ...]]] = defaultdict(set)
    for record in records:
        for one in () if record["spec"].get("holdout") else record["evaluations"]:
            found[one["dataset"], fingerprint(record["spec"], one["dataset"])].add(tuple(one[key] for key in COUNTS))
    return found


def _same_queries(subject: Subject, name: str) -> Iterator[Finding]:
    """The same files have the same queries with a match, whatever the network."""
    own = subject.counts.get((name, fingerprint(subject.record["spec"], name)))
    for one in subject.record["evaluations"]:
        found = tuple(one[key] for key in COUNTS)
        if own and one["dataset"] == name and found not in own:
            theirs, yours = (
                ", ".join(f"{key} {value:,}" for key, value in zip(COUNTS, each, strict=True))
                for each in (found, min(own))
            )
            yield doubtful(f"{name}: it has {theirs}, but your records of the same files have {yours}.")
            return


def _counts(subject: Subject, name: str, block: Mapping[str, Any]) -> Iterator[Finding]:
    """Images, identities and cameras of each split, against the card."""
    card, splits = subject.datasets.get(name), block.get("splits") or {}
    if card is None or not card.expected:
        why = "there is no card of this dataset here" if card is None else "its card has no counts"
        yield unchecked(f"The counts of {name}, because {why}.")
        return
    if not splits and subject.record["status"] == "ok":
        yield unchecked(f"The counts of {name}, because the record has none.")
    if subject.record["spec"].get("holdout"):
        splits = _put_together(splits)
    for split, counts in splits.items():
        expected = card.expected.get(split)
        for kind, count in counts.items():
            if expected and count != (wanted := getattr(expected, kind, count)):
                yield doubtful(f"{name}: {split} has {count:,} {kind}, the card expects {wanted:,}.")


def _put_together(splits: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """The training split that a trial divided; the people held out are those of its gallery."""
    if not splits:
        return {}
    images = sum(counts.get("images", 0) for counts in splits.values())
    people = sum(splits.get(name, {}).get("identities", 0) for name in ("train", "gallery"))
    return {"train": {"images": images, "identities": people}}


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
