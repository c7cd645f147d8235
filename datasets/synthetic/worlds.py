"""The worlds behind the stand-ins: who lives there, which cameras hang there, and who is seen when by which.

Every dataset has a world of its own, with its own people, cameras and character; only Occluded-Duke shares Duke's, as
in reality. A world at a scale is a list of sightings, a pure function of the seed; nothing is drawn here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from datasets.synthetic.cameras import Camera, Climate, camera
from datasets.synthetic.people import derive


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is generated of each world.

    Attributes:
        train_identities: people of the training split.
        test_identities: people of query and gallery; each has one query in every camera that saw it.
        distractors: gallery images of nobody who is searched for (and as many junk boxes where there are any).
        train_images: images of a training identity.
        gallery_images: gallery images of a test identity.
    """

    train_identities: int
    test_identities: int
    distractors: int
    train_images: int
    gallery_images: int


SCALES: dict[str, Scale] = {
    "demo": Scale(train_identities=150, test_identities=80, distractors=60, train_images=10, gallery_images=8),
    "smoke": Scale(train_identities=12, test_identities=8, distractors=6, train_images=6, gallery_images=5),
}


@dataclass(frozen=True, slots=True)
class World:
    """The character of a dataset.

    Attributes:
        name: root of the seeds of its people and cameras.
        cameras: how many there are.
        seen_by: least and greatest number of cameras that see one person.
        wardrobe: season, a key of `people.WARDROBES`.
        climate: how far the cameras differ.
        labels: identity numbers: "dense" 1, 2, ...; "sparse" up to 7140; "separate" from 0 for train and for test.
        occlusion: share of the images in which something stands before the person.
        strangers: what else is in the gallery: "nobody", "junk" (labels -1 and 0), "people" (own labels,
            one camera).
        daylight: change of the light over the day, 0 to 1.
        ragged: images differ in size.
    """

    name: str
    cameras: int
    seen_by: tuple[int, int]
    wardrobe: str
    climate: Climate
    labels: str = "dense"
    occlusion: float = 0.04
    strangers: str = "nobody"
    daylight: float = 0.0
    ragged: bool = False


WORLDS: dict[str, World] = {
    world.name: world
    for world in (
        World("market", 6, (3, 5), "summer", Climate(), strangers="junk"),
        World(
            "duke", 8, (2, 4), "winter", Climate(crop=0.7),
            labels="sparse", occlusion=0.25, strangers="people", ragged=True,
        ),
        World(
            "msmt", 15, (4, 6), "mixed", Climate(indoor=0.35, crop=0.7),
            labels="separate", daylight=0.2, ragged=True,
        ),
        World("cuhk", 2, (2, 2), "mixed", Climate(noise=0.3), ragged=True),
        World("synthetic", 6, (3, 5), "mixed", Climate(indoor=0.2), strangers="junk"),
    )
}  # fmt: skip

SLOTS = ("morning", "noon", "afternoon")


@dataclass(frozen=True, slots=True)
class Sighting:
    """One picture to be drawn.

    Attributes:
        split: "train", "query" or "gallery".
        pid: identity label; 0 is a distractor box, -1 a junk box (`World.strangers`).
        camid: zero-based camera.
        who: seed of the person, None for a false alarm.
        shot: seed of everything else in the picture.
        passage: seed of what the shots of one person by one camera share.
        slot: time of the day, an index of `SLOTS`.
        occluded: something stands before the person.
        misaligned: the box is badly off.
    """

    split: str
    pid: int
    camid: int
    who: int | None
    shot: int
    passage: int
    slot: int
    occluded: bool = False
    misaligned: bool = False


@lru_cache(maxsize=256)
def camera_of(world: World, seed: int, camid: int, slot: int) -> Camera:
    """Return camera ``camid`` of ``world`` in the light of ``slot``."""
    seen = camera(derive(seed, world.name, "camera", camid), world.climate, _turns(world, seed)[camid])
    warm, level = ((-0.5, 0.75), (0.0, 1.1), (0.9, 0.85))[slot]
    tint = np.array((1 + 0.2 * warm, 1.0, 1 - 0.2 * warm)) * level
    red, green, blue = (float(g * (1 + world.daylight * (t - 1))) for g, t in zip(seen.gain, tint, strict=True))
    return replace(seen, gain=(red, green, blue))


@lru_cache(maxsize=256)
def _turns(world: World, seed: int) -> list[tuple[float, ...]]:
    """Return where each camera lies on the circles of colour, light and view: evenly spread, each in its own order."""
    rng = np.random.default_rng(derive(seed, world.name, "turns"))
    circles = [(rng.permutation(world.cameras) + rng.uniform(-0.15, 0.15)) / world.cameras for _ in range(3)]
    return [tuple(place) for place in np.array(circles).T.tolist()]


def sightings(world: World, scale: Scale, seed: int) -> list[Sighting]:
    """Return every picture of ``world`` at ``scale``, sorted by split, label and camera."""
    rng = np.random.default_rng(derive(seed, world.name, "sightings"))
    train, test = _labels(world, scale, rng)
    found: list[Sighting] = []

    def see(split: str, pid: int, camid: int, who: int | None, **quality: bool) -> None:
        shot = derive(seed, world.name, "shot", len(found))
        quality.setdefault("occluded", bool(rng.random() < world.occlusion))
        slot = int(rng.integers(3))
        hour = slot if world.daylight else 0
        passage = shot if who is None else derive(seed, world.name, "passage", who, camid, hour)
        found.append(Sighting(split, pid, camid, who, shot, passage, slot, **quality))

    for index, pid in enumerate(train):
        cameras = _cameras(world, rng)
        for image in range(scale.train_images):
            see("train", pid, cameras[image % len(cameras)], derive(seed, world.name, "train", index))
    for index, pid in enumerate(test):
        cameras = _cameras(world, rng)
        who = derive(seed, world.name, "test", index)
        for camid in cameras:
            see("query", pid, camid, who)
        for image in range(max(scale.gallery_images, len(cameras))):
            see("gallery", pid, cameras[image % len(cameras)], who)
    for index in range(scale.distractors):
        camid = int(rng.integers(world.cameras))
        stranger = derive(seed, world.name, "stranger", index)
        if world.strangers == "junk":
            see("gallery", 0, camid, stranger if index % 2 else None, misaligned=True, occluded=False)
            known = derive(seed, world.name, "test", int(rng.integers(len(test))))
            see("gallery", -1, int(rng.integers(world.cameras)), known, misaligned=True, occluded=False)
    if world.strangers == "people":
        free = sorted(set(range(1, 7141)) - set(train) - set(test))
        for index, place in enumerate(sorted(rng.choice(len(free), max(1, scale.distractors // 2), replace=False))):
            camid = int(rng.integers(world.cameras))
            for _ in range(2):
                see("gallery", free[place], camid, derive(seed, world.name, "stranger", index))
    return sorted(found, key=lambda seen: (seen.split, seen.pid, seen.camid, seen.shot))


def _cameras(world: World, rng: np.random.Generator) -> list[int]:
    """Return the cameras that one person passes."""
    fewest, most = world.seen_by
    count = int(rng.integers(fewest, most + 1))
    return sorted(int(camid) for camid in rng.choice(world.cameras, count, replace=False))


def _labels(world: World, scale: Scale, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Return the sorted labels of the training and of the test identities."""
    train, test = scale.train_identities, scale.test_identities
    if world.labels == "separate":
        return list(range(train)), list(range(test))
    highest = 7140 if world.labels == "sparse" else train + test
    drawn = [int(label) + 1 for label in rng.permutation(highest)[: train + test]]
    return sorted(drawn[:train]), sorted(drawn[train:])
