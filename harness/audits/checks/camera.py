"""Whether a score rests on cameras: on their embedding, or on what features tell about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import metrics, stats
from harness.audits.audit import Audit, Found, Row, Setting, mean_row
from harness.audits.clusters import information, k_means
from harness.audits.subject import Network, Subject
from harness.contracts import Item

SEED = 0
MOST_CLUSTERED = 5_000
"""Number of gallery images that are clustered at most."""

PAIR_RESAMPLES = 1_000


def run(subject: Subject) -> Found:
    """Yields the rows of all parts."""
    if not subject.knows_cameras:
        yield "The cameras of the images are unknown, so nothing can be said about them."
        return
    yield from subject.scores(subject.ranking, {"cameras": "as evaluated"})
    yield from _embedding(subject)
    yield from _centred(subject)
    yield from _clusters(subject)
    yield from _pairs(subject)


def _embedding(subject: Subject) -> Found:
    """Scores of the same weights with the cameras of the images replaced."""
    network = subject.network
    if network is None:
        yield "The features are stored, so the camera embedding of the network cannot be changed."
        return
    if not network.camera_mode:
        yield "The backbone does not embed cameras."
        return
    off = network.features(subject.gallery, cameras="off")
    if np.array_equal(_numpy(off), _numpy(subject.features[1])):
        yield "The features do not depend on cameras."
        return
    off_query = network.features(subject.query, cameras="off")
    yield from _compared(subject, (off_query, off), {"cameras": "off"})
    if network.camera_mode == "mean":
        yield "The network was trained on other cameras, so the evaluation uses the mean of their embeddings."
        return
    yield from _compared(subject, _features(subject, network, "mean"), {"cameras": "mean"})
    yield from _compared(subject, _features(subject, network, "", shuffle=True), {"cameras": "shuffled"})


def _compared(subject: Subject, features: tuple[Any, Any], setting: Setting) -> Iterator[Row]:
    """Scores of other features, and their gain over those of the evaluation."""
    ranking = subject.rank(*features)
    yield from subject.scores(ranking, setting)
    gain = ranking.average_precision - subject.ranking.average_precision
    yield mean_row("gain in mAP", setting, gain, subject.pids[0])


def _features(subject: Subject, network: Network, mode: str, *, shuffle: bool = False) -> tuple[Any, Any]:
    """Features of query and gallery; `shuffle` gives each image the camera of another image of its split."""
    generator = np.random.default_rng(SEED)
    query, gallery = (_shuffled(items, generator) if shuffle else items for items in (subject.query, subject.gallery))
    return network.features(query, cameras=mode), network.features(gallery, cameras=mode)


def _shuffled(items: Any, generator: np.random.Generator) -> list[Item]:
    order = generator.permutation(len(items))
    return [item._replace(camid=items[other].camid) for item, other in zip(items, order, strict=True)]


def _centred(subject: Subject) -> Found:
    """Scores of features whose mean per camera is removed, and of those divided by their deviation, too."""
    for name, scale in (("centred per camera", False), ("standardised per camera", True)):
        changed = per_camera(*subject.features, *subject.camids, scale=scale)
        yield from _compared(subject, changed, {"features": name})


def per_camera(
    query: Any, gallery: Any, query_camids: np.ndarray, gallery_camids: np.ndarray, *, scale: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns features minus the mean of their camera, over query and gallery, in their type.

    Args:
        query: features [n_query, D].
        gallery: features [n_gallery, D].
        query_camids: cameras [n_query].
        gallery_camids: cameras [n_gallery].
        scale: whether to divide by the standard deviation of the camera, too.
    """
    features = np.concatenate([_numpy(query), _numpy(gallery)]).astype(np.float64)
    camids = np.concatenate([query_camids, gallery_camids])
    for camera in np.unique(camids):
        own = camids == camera
        if own.sum() < 2:
            continue  # a single image would become zero, which cannot be ranked
        part = features[own]
        spread = part.std(axis=0) if scale else np.ones(1)
        features[own] = (part - part.mean(axis=0)) / np.where(spread > 0, spread, 1)
    features = features.astype(_numpy(gallery).dtype)
    return features[: len(query)], features[len(query) :]


def _clusters(subject: Subject) -> Iterator[Row | str]:
    """How much clusters of gallery features tell about identities and cameras."""
    generator = np.random.default_rng(SEED)
    count = min(MOST_CLUSTERED, len(subject.gallery))
    chosen = np.sort(generator.choice(len(subject.gallery), size=count, replace=False))
    pids, camids = (np.unique(labels[1][chosen], return_inverse=True)[1] for labels in (subject.pids, subject.camids))
    identities = int(pids.max()) + 1
    yield f"Clusters: k-means of {count:,} gallery features into {identities:,} clusters, one per identity among them."
    centred = per_camera(*subject.features, *subject.camids, scale=False)[1]
    for name, features in (("as they are", _numpy(subject.features[1])), ("centred per camera", centred)):
        found = k_means(features[chosen], identities, seed=SEED)
        for of, labels in (
            ("cameras", camids),
            ("shuffled cameras", generator.permutation(camids)),
            ("identities", pids),
        ):
            yield _information(f"NMI of clusters and {of}", name, found, labels, pids)


def _information(name: str, features: str, found: np.ndarray, labels: np.ndarray, pids: np.ndarray) -> Row:
    statistic = information(found, labels)
    low, high = stats.jackknife_interval(statistic, pids)
    return Row(name, {"features": features}, statistic(np.arange(len(found))), (max(0.0, low), min(1.0, high)))


def _pairs(subject: Subject) -> Found:
    """MAP of the queries of one camera in the gallery of another camera alone."""
    (q_pids, g_pids), (q_cams, g_cams) = subject.pids, subject.camids
    query, gallery = subject.features
    for a in np.unique(q_cams):
        for b in np.unique(g_cams):
            own, images = np.flatnonzero(q_cams == a), np.flatnonzero(g_cams == b)
            if a == b or not np.isin(q_pids[own], g_pids[images]).any():
                continue
            ranking = metrics.evaluate_ranking(
                query[own], gallery[images], q_pids[own], g_pids[images], q_cams[own], g_cams[images],
                metric=subject.metric,
            )  # fmt: skip
            setting = {"query camera": int(a), "gallery camera": int(b)}
            values = ranking.average_precision
            yield mean_row("mAP of camera pairs", setting, values, q_pids[own], resamples=PAIR_RESAMPLES)


def _numpy(features: Any) -> np.ndarray:
    return np.asarray(features.detach().cpu().numpy() if hasattr(features, "detach") else features)


AUDIT = Audit(
    run,
    about="Does the score rest on cameras: on their embedding, or on what the features tell about them?",
    source="Song et al., Exploring the Camera Bias of Person Re-identification, ICLR 2025 (arXiv 2502.10195): features "
    "normalised per camera, and normalised mutual information (NMI) of clusters with cameras and identities. There "
    "the clusters are those of InfoMap, here those of k-means.",
)
