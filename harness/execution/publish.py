"""Publishes the network of a run: weights, model card and record, in a folder or on the Hugging Face hub."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry, weights
from harness.errors import RunError, UsageError
from harness.execution import model_card
from harness.records import store
from harness.records.schema import Record
from harness.registry import BackboneEntry
from harness.spec import recipe
from harness.system import files
from harness.system.paths import expand
from harness.system.redact import mask
from harness.weights import published
from harness.weights.published import Facts

HUB = "hf://"
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
"""What addresses of any kind start with."""


@dataclass(frozen=True)
class Package:
    """What is about to be uploaded.

    Attributes:
        folder: a folder with the files.
        files: size of each file in bytes, by name.
        repository: `user/name` on the hub.
        public: whether a new repository will be visible to everyone.
    """

    folder: Path
    files: dict[str, int]
    repository: str
    public: bool


Consent = Callable[[Package], bool]


def publish(
    run: str,
    to: str | os.PathLike[str],
    *,
    results: str | os.PathLike[str] = "results",
    plugins: str | os.PathLike[str] = "",
    public: bool = False,
    consent: Consent = lambda package: False,
) -> str:
    """Publishes a finished training run; returns where it is.

    Args:
        run: id of the run, or its first characters.
        to: a new or empty folder, or `hf://user/name`.
        results: folder of the records.
        plugins: folder of further plug-ins.
        public: whether a new repository on the hub is visible to everyone; private by default.
        consent: asked before anything is sent. By default nothing is sent.

    Raises:
        UsageError: an unknown run, one without a score or a checkpoint, a folder in use, or no consent.
        WeightsError: the checkpoint does not fit the backbone.
        RunError: the upload failed.
    """
    if (repository := _repository(str(to))) == "" and public:
        raise UsageError("--public is for a repository on the hub. Leave it out.")
    folder = store.find_run(Path(expand(results)), run)
    record, plugin_folder = _finished(folder), Path(expand(plugins)) if plugins else None
    backbone = registry.backbone(record["spec"]["backbone"], plugin_folder)
    dataset = registry.dataset(record["spec"]["dataset"], plugin_folder)
    if not repository:
        card = model_card.text(record, backbone, dataset)
        with files.writing(place := Path(expand(to)).absolute(), "--to"):
            return _into_folder(place, folder, record, backbone, card)
    with (
        files.writing(Path(tempfile.gettempdir()), "TMPDIR"),
        tempfile.TemporaryDirectory(prefix="harness-publish-") as made,
    ):
        _write(Path(made), folder, record, backbone, model_card.text(record, backbone, dataset, repository))
        sizes = {path.name: path.stat().st_size for path in sorted(Path(made).iterdir())}
        package = Package(Path(made), sizes, repository, public)
        if not consent(package):
            raise UsageError("Nothing was sent. Pass --yes to upload.")
        return _upload(package)


def _repository(target: str) -> str:
    """Returns the name of a repository on the hub; empty for a folder.

    Raises:
        UsageError: the target is neither.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if target and not ADDRESS.match(target):
        return ""
    try:
        if target.startswith(HUB) and (name := target.removeprefix(HUB)).count("/") == 1:
            validate_repo_id(name)
            return name
    except HFValidationError:
        pass
    raise UsageError(f"The target must be a folder, or {HUB}user/name on the hub; found '{target}'.")


def _into_folder(target: Path, folder: Path, record: Record, backbone: BackboneEntry, card: str) -> str:
    """Writes the files beside the target and renames their folder, so that it is complete or absent."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not an empty folder. Pass another --to.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=target.parent) as made:
        inner = Path(made) / "files"
        inner.mkdir()
        _write(inner, folder, record, backbone, card)
        inner.replace(target)  # an empty folder may be replaced
    return str(target)


def _finished(folder: Path) -> Record:
    """Reads the record of a run.

    Raises:
        UsageError: the run trained nothing, has not ended well, or has no checkpoint.
    """
    record = store.read(folder)
    name = f"Run {record['run_id'][:12]}"
    if record["source"] != "trained" or record["status"] != "ok":
        raise UsageError(
            f"{name} cannot be published: its status is {record['status']} and its source {record['source']}. Only "
            "trained and scored runs can."
        )
    if not (folder / "checkpoint.pt").is_file():
        raise UsageError(f"{name} has no checkpoint in {folder}. Run it again with --force, or where it was trained.")
    return record


def _write(place: Path, folder: Path, record: Record, backbone: BackboneEntry, card: str) -> None:
    """Writes the files into a folder, and loads the weights back as a reader would."""
    file, chosen = place / model_card.WEIGHTS, recipe.from_values("", dict(record["spec"]["values"]))
    trained = (record["data"].get("splits") or {}).get("train", {})
    facts = Facts(
        backbone=backbone.name,
        run_id=record["run_id"],
        options=record["spec"]["options"],
        image_size=chosen.augmentation.image_size,
        interpolation=chosen.augmentation.interpolation_test,
        identities=trained.get("identities", 1),
        cameras=trained.get("cameras", 1),
    )
    published.save(file, weights.load_state(folder / "checkpoint.pt"), facts)
    _check(file, backbone, facts)
    (place / model_card.RECORD).write_text(store.render(_without_paths(record)), encoding="utf-8")
    (place / "README.md").write_text(card, encoding="utf-8")


def _check(file: Path, backbone: BackboneEntry, facts: Facts) -> None:
    """Builds the network from the written file, which raises WeightsError if they do not fit."""
    from harness.training.trained import from_checkpoint

    from_checkpoint(
        backbone,
        weights.load_state(file),
        facts.options,
        image_size=facts.image_size,
        num_classes=facts.identities,
        num_cameras=facts.cameras,
    )


def _without_paths(record: Record) -> dict[str, Any]:
    """The record without folders of the user, which the path of a recipe may name."""
    kept: dict[str, Any] = dict(record)
    if (asked := kept.get("request")) and recipe.is_path(str(asked.get("recipe") or "")):
        kept["request"] = {**asked, "recipe": Path(asked["recipe"]).name}
    return kept


def _upload(package: Package) -> str:
    """Uploads a package with the user's own login; returns the address.

    Raises:
        RunError: the hub refused it or could not be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        hub.create_repo(package.repository, private=not package.public, exist_ok=True)
        done = hub.upload_folder(
            repo_id=package.repository, folder_path=package.folder, commit_message="Publish a run of reid-harness"
        )
    except LocalTokenNotFoundError as error:
        raise RunError("The hub needs a login. Run `hf auth login`, or set HF_TOKEN, and try again.") from error
    except Exception as error:  # of the hub's client, or of the HTTP library below it, which changes with versions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(f"{package.repository} could not be uploaded: {mask(reason)}") from error
    return str(getattr(done, "repo_url", "") or f"{hub.endpoint}/{package.repository}")
