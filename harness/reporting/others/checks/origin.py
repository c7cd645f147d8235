"""Origin: protocol, code and checkout that a record comes from."""

from __future__ import annotations

from collections.abc import Iterator

from harness.records.schema import ended
from harness.reporting.others.findings import Finding, Subject, doubtful, unchecked
from harness.spec.names import SCORED
from harness.system.version import PROTOCOL_VERSION


def check(subject: Subject) -> Iterator[Finding]:
    """Everything about the program that wrote the record."""
    record, spec = subject.record, subject.record["spec"]
    if ended(record) not in ("ok", "stopped"):
        reason = (record["error"] or {}).get("message") or "no reason is recorded"
        yield doubtful(f"The run ended with {record['status']}: {reason}")
    if record["source"] in SCORED and record["protocol_version"] != PROTOCOL_VERSION:
        yield doubtful(
            f"It was scored under protocol {record['protocol_version']}, this version has {PROTOCOL_VERSION}. They are "
            "not compared."
        )
    name = spec["backbone"].partition(":")[0]
    if record["source"] != "features":
        if name not in subject.sources:
            yield unchecked(f"The code of {name}, because it is not registered here; add its folder with --plugins.")
        elif spec.get("source") and spec["source"] != subject.sources[name]:
            yield unchecked(
                f"The code of {name}, because it differs from this checkout; look at the commit of the record."
            )
    environment = record["environment"]
    if not environment.get("git_commit"):
        yield unchecked("The commit of the harness, because the record names none.")
    elif environment.get("git_dirty"):
        yield doubtful(f"The checkout of commit {str(environment['git_commit'])[:12]} had uncommitted changes.")
