"""The worlds of the stand-ins: people, cameras, and the list of sightings of people by cameras.

Every dataset has its own world with its own people and cameras; only Occluded-Duke uses the world of Duke, as in
reality. `sightings` lists all images of a world at a scale; the list depends only on the seed. Nothing is drawn here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from datasets.synthetic.cameras import Camera, Climate, camera
from datasets.synthetic.people import derive


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a generated dataset.

    Attributes:
        train_identities: number of people in the training split.
        test_identities: number of people in query and gallery; each has one query per camera that saw the person.
        distractors: number of distractor images in the gallery, and of junk boxes in worlds with junk.
        train_images: images per training identity.
        gallery_images: gallery images per test identity.
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
    """The properties of a dataset.

    Attributes:
        name: name, from which the seeds of people and cameras are derived.
        cameras: number of cameras.
        seen_by: minimum and maximum number of cameras that see a person.
        wardrobe: season, a key of `people.WARDROBES`.
        climate: how much the cameras differ.
        labels: numbers of identities: "dense" for 1, 2, ...; "sparse" up to 7140; "separate" from 0 in train and in
            test.
        occlusion: fraction of training, query and gallery images in which an object covers part of the person.
        strangers: distractors in the gallery: "nobody"; "junk" (labels -1 and 0); "people" (own labels, one camera).
        daylight: change of the light during the day, 0 to 1.
        ragged: whether images differ in size.
    """

    name: str
    cameras: int
    seen_by: tuple[int, int]
    wardrobe: str
    climate: Climate
    labels: str = "dense"
    occlusion: tuple[float, float, float] = (0.04, 0.04, 0.04)
    strangers: str = "nobody"
    daylight: float = 0.0
    ragged: bool = False


WORLDS: dict[str, World] = {
    world.name: world
    for world in (
        World("market", 6, (3, 5), "summer", Climate(), strangers="junk"),
        World(
            "duke", 8, (2, 4), "winter", Climate(crop=0.7),
            # as in the paper of Occluded-Duke, but for more occluded queries, since the stand-in is small
            labels="sparse", occlusion=(0.09, 0.25, 0.10), strangers="people", ragged=True,
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
    """One image of a person (or false alarm) by a camera.

    Attributes:
        split: "train", "query" or "gallery".
        pid: identity; 0 is a distractor box, -1 a junk box (`World.strangers`).
        camid: zero-based camera.
        who: seed of the person, None for a false alarm.
        shot: seed of everything else in the image.
        passage: seed of the passage, which all images of one person by one camera share.
        slot: time of the day, an index of `SLOTS`.
        occluded: whether an object covers part of the person.
        misaligned: whether the box is wrong.
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
    """Returns camera ``camid`` of a world in the light of a time of the day."""
    seen = camera(derive(seed, world.name, "camera", camid), world.climate, _turns(world, seed)[camid])
    warm, level = ((-0.5, 0.75), (0.0, 1.1), (0.9, 0.85))[slot]
    tint = np.array((1 + 0.2 * warm, 1.0, 1 - 0.2 * warm)) * level
    red, green, blue = (float(g * (1 + world.daylight * (t - 1))) for g, t in zip(seen.gain, tint, strict=True))
    return replace(seen, gain=(red, green, blue))


@lru_cache(maxsize=256)
def _turns(world: World, seed: int) -> list[tuple[float, ...]]:
    """Returns the positions of the cameras on the circles of colour, light and view: evenly spread, in random order."""
    rng = np.random.default_rng(derive(seed, world.name, "turns"))
    circles = [(rng.permutation(world.cameras) + rng.uniform(-0.15, 0.15)) / world.cameras for _ in range(3)]
    return [tuple(place) for place in np.array(circles).T.tolist()]


def sightings(world: World, scale: Scale, seed: int) -> list[Sighting]:
    """Returns all sightings of a world at a scale, sorted by split, identity and camera."""
    rng = np.random.default_rng(derive(seed, world.name, "sightings"))
    train, test = _labels(world, scale, rng)
    occlusion = dict(zip(("train", "query", "gallery"), world.occlusion, strict=True))
    found: list[Sighting] = []

    def see(split: str, pid: int, camid: int, who: int | None, **quality: bool) -> None:
        shot = derive(seed, world.name, "shot", len(found))
        quality.setdefault("occluded", bool(rng.random() < occlusion[split]))
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
    """Returns the cameras that one person passes."""
    fewest, most = world.seen_by
    count = int(rng.integers(fewest, most + 1))
    return sorted(int(camid) for camid in rng.choice(world.cameras, count, replace=False))


def _labels(world: World, scale: Scale, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Returns the sorted labels of the training identities and of the test identities."""
    train, test = scale.train_identities, scale.test_identities
    if world.labels == "separate":
        return list(range(train)), list(range(test))
    highest = 7140 if world.labels == "sparse" else train + test
    drawn = [int(label) + 1 for label in rng.permutation(highest)[: train + test]]
    return sorted(drawn[:train]), sorted(drawn[train:])
