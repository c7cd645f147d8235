"""Arranges sightings like the official archives: folders, file names and list files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from datasets.synthetic.worlds import SLOTS, WORLDS, Scale, Sighting, World, sightings

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


@dataclass(frozen=True, slots=True)
class File:
    """One image file: its path below the dataset folder, its split, and the sighting that it shows."""

    path: str
    split: str
    seen: Sighting


@dataclass(frozen=True)
class Plan:
    """The content of a dataset folder: image files, and text files by name."""

    files: list[File]
    texts: dict[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns the number of images, identities, cameras and occluded images of every split.

        Junk boxes (label -1) are counted separately under `junk`, because readers drop them. Distractor boxes (label 0)
        count as one identity of the gallery.
        """
        splits: dict[str, list[Sighting]] = {}
        for file in self.files:
            splits.setdefault("junk" if file.seen.pid < 0 else file.split, []).append(file.seen)
        return {
            split: {
                "images": len(seen),
                "identities": len({one.pid for one in seen}),
                "cameras": len({one.camid for one in seen}),
                "occluded": sum(one.occluded for one in seen),
            }
            for split, seen in splits.items()
        }


def _market(seen: Sequence[Sighting]) -> Plan:
    """Market-1501: `PPPP_cCsS_FFFFFF_BB.jpg`; box 00 for queries (hand-drawn), from 01 on for detected boxes."""
    files = []
    for index, one in enumerate(seen):
        box = 0 if one.split == "query" else 1 + one.shot % 4
        label = f"{one.pid:04d}" if one.pid >= 0 else "-1"
        name = f"{label}_c{one.camid + 1}s{1 + one.shot % 6}_{(index + 1) * 25 + 1:06d}_{box:02d}.jpg"
        files.append(File(f"{FOLDERS[one.split]}/{name}", one.split, one))
    return Plan(files)


def _duke(seen: Sequence[Sighting]) -> Plan:
    """DukeMTMC-reID: `PPPP_cC_fFFFFFFF.jpg`; distractors in the gallery have normal labels and one camera."""
    files = []
    for index, one in enumerate(seen):
        name = f"{one.pid:04d}_c{one.camid + 1}_f{40_000 + index * 13:07d}.jpg"
        files.append(File(f"{FOLDERS[one.split]}/{name}", one.split, one))
    return Plan(files)


def _occluded_duke(seen: Sequence[Sighting]) -> Plan:
    """Occluded-Duke: Duke's gallery, most of its training images, and its occluded test images as queries.

    As in the original, a query taken from the gallery is also in the gallery. It has the same identity and camera, so
    the protocol ignores it.
    """
    duke = _duke(seen).files
    gallery = [file for file in duke if file.split == "gallery"]
    train = [file for index, file in enumerate(file for file in duke if file.split == "train") if index % 18]
    cameras: dict[int, set[int]] = {}
    for file in gallery:
        cameras.setdefault(file.seen.pid, set()).add(file.seen.camid)
    queries = [
        File(f"query/{file.path.split('/')[1]}", "query", file.seen)
        for file in duke
        if file.split != "train" and file.seen.occluded and cameras[file.seen.pid] - {file.seen.camid}
    ]
    return Plan(train + queries + gallery)


def _msmt17(seen: Sequence[Sighting]) -> Plan:
    """MSMT17: `train|test/PPPP/PPPP_III_CC_MMDDslot_FFFF_K[_ex].jpg` and four lists; val has identities of train."""
    files: list[File] = []
    lists = {split: "" for split in ("train", "val", "query", "gallery")}
    running: Counter[tuple[str, int]] = Counter()
    for index, one in enumerate(seen):
        folder = "train" if one.split == "train" else "test"
        number = running[folder, one.pid]
        running[folder, one.pid] += 1
        day = f"0{3 + one.shot % 2}{1 + one.shot % 28:02d}{SLOTS[one.slot]}"
        extra = "_ex" if one.shot % 5 == 0 else ""
        frame = f"{index % 10_000:04d}_{one.shot % 3}{extra}"
        name = f"{one.pid:04d}/{one.pid:04d}_{number:03d}_{one.camid + 1:02d}_{day}_{frame}.jpg"
        split = "val" if folder == "train" and number % 10 == 4 else one.split
        lists[split] += f"{name} {one.pid}\n"
        files.append(File(f"{folder}/{name}", split, one))
    return Plan(files, {f"list_{split}.txt": lines for split, lines in lists.items()})


def _cuhk03(seen: Sequence[Sighting]) -> Plan:
    """CUHK03: `LLLL_cV_N.png`, where N numbers all images of the dataset in the order of labels, from 1."""
    order = sorted(seen, key=lambda one: (one.pid, one.camid, one.shot))
    files = [
        File(f"{FOLDERS[one.split]}/{one.pid:04d}_c{one.camid + 1}_{number}.png", one.split, one)
        for number, one in enumerate(order, start=1)
    ]
    return Plan(files)


@dataclass(frozen=True, slots=True)
class Layout:
    """A generated dataset on disk.

    Attributes:
        world: the world that it shows.
        folder: its folder below the data root.
        arrange: function that names its files.
        box_error: factor of the error of boxes; hand-labeled boxes are tighter than detected ones.
    """

    world: World
    folder: str
    arrange: Callable[[Sequence[Sighting]], Plan]
    box_error: float = 1.0

    def plan(self, scale: Scale, seed: int) -> Plan:
        """Returns the content of the folder."""
        return self.arrange(sightings(self.world, scale, seed))


LAYOUTS: dict[str, Layout] = {
    "market1501": Layout(WORLDS["market"], "Market-1501-v15.09.15", _market),
    "dukemtmc": Layout(WORLDS["duke"], "DukeMTMC-reID", _duke),
    "occluded-duke": Layout(WORLDS["duke"], "Occluded_Duke", _occluded_duke),
    "msmt17": Layout(WORLDS["msmt"], "MSMT17_V1", _msmt17),
    "cuhk03-detected": Layout(WORLDS["cuhk"], "cuhk03-np/detected", _cuhk03),
    "cuhk03-labeled": Layout(WORLDS["cuhk"], "cuhk03-np/labeled", _cuhk03, box_error=0.3),
    "synthetic": Layout(WORLDS["synthetic"], "synthetic", _market),
}
OFFICIAL = ("market1501", "dukemtmc", "msmt17", "cuhk03", "occluded-duke")
