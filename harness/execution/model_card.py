"""The model card of a published network: README.md with a header that the Hugging Face hub reads."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from harness.audits.layout import arranged, described
from harness.contracts import UNKNOWN_CAMERAS
from harness.records.schema import Evaluation, Record, matched
from harness.registry import BackboneEntry, DatasetEntry
from harness.spec import recipe
from harness.weights import wanted

WEIGHTS, RECORD = "model.safetensors", "record.json"
SCORING = ("image_size", "interpolation_test", "metric", "flip", "rerank", "max_rank", "batch_size")
"""Keys of a recipe that change how a checkpoint is scored."""


def text(record: Record, backbone: BackboneEntry, dataset: DatasetEntry, repository: str = "") -> str:
    """Returns the card of a finished run.

    Args:
        record: its record.
        backbone: its backbone.
        dataset: the dataset that it was trained on.
        repository: name of the repository on the hub; empty for a local folder.
    """
    spec, generated = record["spec"], record["data"].get("generated")
    people = f"{dataset.card.title}, generated stand-in without photographs" if generated else dataset.card.title
    scores = [one for one in record["evaluations"] if one["trained"]]
    return "\n".join(
        [
            "---",
            _header(record, backbone, dataset, people, scores, repository),
            "---",
            "",
            f"# {backbone.card.title} for person re-identification, trained on {people}",
            "",
            "The network turns a crop of a person into a feature. Features of the same person are similar.",
            "",
            *_scores(scores),
            *_audits(record),
            *_use(record, backbone, dataset, repository),
            *_training(record, backbone, dataset, people),
            *_licences(record, backbone, dataset),
            "## Origin",
            "",
            f"- Backbone: {backbone.card.paper or backbone.card.title}. {backbone.card.about}".rstrip(),
            f"- Run `{record['run_id']}`, protocol {record['protocol_version']}, torch {spec['torch']}.",
            f"- Code: reid-harness at commit {_commit(record['environment'])}.",
            f"- `{RECORD}` has every setting, the data's fingerprint and the environment.",
            "",
        ]
    )


def _commit(environment: Mapping[str, Any]) -> str:
    found = environment.get("git_commit") or "unknown"
    return f"{found}, with local changes" if environment.get("git_dirty") else found


def _header(
    record: Record,
    backbone: BackboneEntry,
    dataset: DatasetEntry,
    people: str,
    scores: list[Evaluation],
    repository: str,
) -> str:
    """The YAML header, with the scores in the hub's form."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-feature-extraction",
            task_name="Person re-identification",
            dataset_type=one["dataset"],
            dataset_name=people if one["dataset"] == dataset.name else one["dataset"],
            dataset_config=_variant(one),
            metric_type=kind,
            metric_name=kind,
            metric_value=round(100 * one[kind], 2),  # type: ignore[literal-required]
        )
        for one in scores
        for kind in ("mAP", "rank-1")
    ]
    header = ModelCardData(
        model_name=repository.partition("/")[2] or f"{backbone.name}-{dataset.name}",
        eval_results=results,
        library_name="reid-harness",
        pipeline_tag="image-feature-extraction",
        tags=["person-re-identification", backbone.card.name, dataset.name],
        license="other",
        license_name="see-model-card",
    )
    return header.to_yaml()


def _variant(evaluation: Evaluation) -> str:
    return "+".join(name for name in ("flip", "rerank") if evaluation[name]) or "plain"  # type: ignore[literal-required]


def _scores(scores: list[Evaluation]) -> list[str]:
    rows = []
    for one in scores:
        values = [one["dataset"], _variant(one), _with_interval(one, "mAP"), _with_interval(one, "rank-1")]
        values += ["-" if one["mINP"] is None else f"{100 * one['mINP']:.1f}", matched(one) or "all"]
        rows.append(f"| {' | '.join(values)} |")
    return [
        "## Scores",
        "",
        "In percent, of the last epoch. Intervals are 95 % bootstrap intervals over the identities of the queries.",
        "",
        "| dataset | test | mAP | rank-1 | mINP | queries with a match |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _with_interval(evaluation: Evaluation, kind: str) -> str:
    bounds = evaluation["interval"].get(kind)
    value = f"{100 * evaluation[kind]:.1f}"  # type: ignore[literal-required]
    return f"{value} ({100 * bounds[0]:.1f} to {100 * bounds[1]:.1f})" if bounds else value


def _audits(record: Record) -> list[str]:
    """The values that each audit lists; matrices are in the record."""
    lines = ["## Audits", ""]
    for block in record.get("audits") or ():
        lines += [f"{block['check']} on {block['dataset']}: {block.get('about') or ''}".rstrip(), ""]
        if rows := [row for row in arranged(block["rows"]).rows if row["value"] is not None]:
            lines += ["| value of | setting | value |", "|---|---|---|"]
            lines += [f"| {row['name']} | {described(row['setting']) or '-'} | {_audited(row)} |" for row in rows]
            lines.append("")
        failed = [f"The audit failed: {block['error']}"] if block.get("error") else []
        if remarks := [*(block.get("notes") or ()), *failed]:
            lines += [*(f"- {remark}" for remark in remarks), ""]
    return lines if len(lines) > 2 else [*lines, "No audit was made.", ""]


def _audited(row: Mapping[str, Any]) -> str:
    bounds = row.get("interval")
    return f"{row['value']:.4f}" + (f" ({bounds[0]:.4f} to {bounds[1]:.4f})" if bounds else "")


def _use(record: Record, backbone: BackboneEntry, dataset: DatasetEntry, repository: str) -> list[str]:
    """How to load the network, and how to score it again."""
    spec = record["spec"]
    fetched = [
        "from huggingface_hub import snapshot_download",
        "",
        f'folder = snapshot_download("{repository}")',
    ]
    plugged = [name for entry in (backbone, dataset) if (name := entry.package).startswith("harness_plugins.")]
    score = ["python", "-m", "harness", "evaluate", "--backbone", backbone.name, "--dataset", dataset.name]
    score += ["--checkpoint", WEIGHTS, "--data-root", "DATA_ROOT", *(["--plugins", "PLUGINS"] if plugged else [])]
    score += [*_reader(dataset.name, spec), *_settings(spec["values"])]
    more = ', plugins="PLUGINS"' if backbone.package in plugged else ""
    return [
        "## Use",
        "",
        "In a checkout of reid-harness" + (", with the folder PLUGINS of your plug-ins:" if plugged else ":"),
        "",
        "```python",
        "import harness",
        *(fetched if repository else ['folder = "."  # the folder of this file']),
        f'network = harness.load_backbone("{backbone.name}", checkpoint=f"{{folder}}/{WEIGHTS}"{more})',
        'features = network.embed(["a.jpg", "b.jpg"])  # of unit length; their product is the cosine similarity',
        "```",
        "",
        "To score it again:",
        "",
        "```bash",
        shlex.join(score),
        "```",
        "",
    ]


def _reader(dataset: str, spec: Mapping[str, Any]) -> list[str]:
    """Arguments for the reader options of the run."""
    given = (spec.get("dataset_options") or {}).get(dataset, {})
    return [word for key, value in given.items() for word in ("--data-option", f"{dataset}.{key}={json.dumps(value)}")]


def _settings(values: Mapping[str, Any]) -> list[str]:
    """Arguments for the settings that change a score and differ from those of the unified recipe."""
    usual, words = recipe.load(recipe.find("unified")).values(), []
    for table in ("augmentation", "evaluation"):
        for key, value in values[table].items():
            if key in SCORING and json.dumps(usual[table][key]) != json.dumps(value):
                words += ["--set", f"{table}.{key}={json.dumps(value)}"]
    return words


def _training(record: Record, backbone: BackboneEntry, dataset: DatasetEntry, people: str) -> list[str]:
    spec, train = record["spec"], (record["data"].get("splits") or {})["train"]
    chosen = recipe.from_values(spec["recipe"], dict(spec["values"]))
    sampler, size = chosen.sampler, "x".join(map(str, chosen.augmentation.image_size))
    usual, unknown = backbone.options(), (record["data"].get("notes") or {}).get("cameras") == UNKNOWN_CAMERAS
    changed = [f"`{key} = {json.dumps(v)}`" for key, v in spec["options"].items() if v != usual.get(key)]
    lines = [
        "## Training",
        "",
        f"- Data: {people}: {train['images']:,} images of {train['identities']:,} identities from "
        f"{'unknown' if unknown else train['cameras']} cameras. {dataset.card.reference}".rstrip(),
        f"- Network: `{backbone.name}` with {', '.join(changed) or 'its default options'}.",
        f"- Recipe: `{spec['recipe']}`, {chosen.training.epochs} epochs, batches of {sampler.identities} identities "
        f"with {sampler.instances} images, {size} pixels, {chosen.optimizer.name}, seed {spec['seed']}.",
        *(f"- {note}" for note in record["data"]["count_mismatch"] or ()),
    ]
    return [*lines, ""]


def _licences(record: Record, backbone: BackboneEntry, dataset: DatasetEntry) -> list[str]:
    spec = record["spec"]
    start = wanted(backbone.card, spec["options"]) if spec.get("pretrained", "none") != "none" else None
    weights = f"{start.trained_on}; the card gives no licence, see {start.url or start.hub}" if start else "random"
    return [
        "## Licences",
        "",
        "Check that they allow your use.",
        "",
        f"- Original code of the backbone: {backbone.card.licence or 'not stated'}",
        f"- Starting weights: {weights}",
        f"- Training data: {dataset.card.licence or 'not stated'}",
        "",
    ]
