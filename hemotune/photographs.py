"""Find which photograph each image came from, so that no split puts copies of one on both sides.

Augmentation turns, shifts, shears, mirrors and rescales the brightness of a photograph. Local
features (ORB: binary and fast) survive all of that but the mirror, so one side of each comparison
is described twice, plain and mirrored. An image's features vote for the references that hold their
nearest neighbours (one FLANN index over all of them), and the few with most votes are checked:
RANSAC fits an affine map, the reference is warped onto the image, and both show one photograph if
enough features agree on the map and the grey values correlate. Of 60 real images, true pairs had 19
or more agreeing features and a correlation above 0.8, others at most 8 and 0.45; among drawn
images, which show less, a few false pairs reach 14 and 0.68. More than 99 % of the real images are
matched, in 12 ms each.

The method by which an image's photograph was found:

1. matched: the image matches an original photograph, where the data set has them. Photographs that
   overlap count as one, under the first one's name: the real data holds 20 scenes that were taken
   twice, two of them once in TRAIN and once in TEST.
2. clustered: the images that match no original, or all of them where there are no originals, are
   compared with all images in the same way. Images that are linked over any number of steps are one
   group; a group with a matched image takes its photograph.
3. alone: no other image resembles it.
4. unknown: the image cannot be read, or shows too little to be compared.
"""

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pandas as pd
from cv2.typing import MatLike
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet

from hemotune.progress import Progress, cores

WIDTH, SHRINK = 320, 2  # pixels: features are found at this width, grey values compared at half
FEATURES = 150  # of a side, the strongest
# Grey levels by which a corner differs from what is around it; the next where one gives too few,
# as in a darkened copy
THRESHOLDS, ENOUGH = (8, 3), 50
DARK = 24  # grey value up to which a pixel is black fill
FEWEST = 12  # features that agree on one affine map
# Of an image with another picture; of two photographs, which may differ in focus
CORRELATION, OVERLAP = 0.72, 0.6
SCALE = (0.6, 1.7)  # least and most that a believable map shrinks or stretches
FEWEST_VOTES = 3  # for a reference to be a candidate
# Candidates that are checked: photographs of an image, other images of an image
PHOTOGRAPHS, NEIGHBOURS = 3, 10

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Side:
    """Local features of a picture, described as it is or mirrored.

    Attributes:
        points: (features, 2): x and y in the picture as it is, WIDTH wide.
        descriptors: (features, 32) bytes.
    """

    points: NDArray[np.float32]
    descriptors: MatLike


@dataclass(frozen=True, eq=False)
class Picture:
    """What is kept of an image or a photograph.

    Attributes:
        sides: plain, then mirrored where that is needed; none of a picture that cannot be read.
        grey: (height, WIDTH / SHRINK), uint8.
        digest: sha256 of the decoded pixels, None where there are none.
    """

    path: Path
    sides: tuple[Side, ...]
    grey: MatLike
    digest: str | None

    @property
    def comparable(self) -> bool:
        return bool(self.sides) and len(self.sides[0].descriptors) >= FEWEST


@dataclass(frozen=True)
class Candidate:
    """A reference, by its place, that may show the same photograph as a picture's `side`."""

    reference: int
    reference_side: int
    side: int


def group(image_paths: Sequence[Path], photograph_paths: Sequence[Path] = ()) -> pd.DataFrame:
    """Find which photograph each image came from.

    Args:
        image_paths: images of any size, in any format that OpenCV reads.
        photograph_paths: the original photographs; may be empty, or lack some.

    Returns:
        DataFrame of path (str, as given and in that order), photograph (file name of the original,
        else group-00001 or, of one image, single-00002 and so on) and method ("matched" |
        "clustered" | "alone" | "unknown").
    """
    threads = cv2.getNumThreads()
    # Pictures are distributed over our own threads: OpenCV releases Python's global lock.
    cv2.setNumThreads(1)
    try:
        pictures = read_pictures(photograph_paths, mirrored=True, what="read photographs")
        photographs = [picture for picture in pictures if picture.sides]
        images = read_pictures(image_paths, mirrored=not photographs, what="read images")
        names = match(images, photographs)
        unmatched = [place for place, name in enumerate(names) if name is None]
        if photographs:
            rest = [image_paths[place] for place in unmatched]
            pictures = read_pictures(rest, mirrored=True, what="read unmatched images")
            for place, picture in zip(unmatched, pictures, strict=True):
                images[place] = picture
        groups = link(images, unmatched, names, CORRELATION, "compare images")
    finally:
        cv2.setNumThreads(threads)
    return photographs_table(images, names, groups)


def photographs_table(
    images: Sequence[Picture], names: Sequence[str | None], groups: DisjointSet
) -> pd.DataFrame:
    """Return the table of `group`.

    Args:
        names: each image's photograph, None where it matched none.
        groups: of the images' places.
    """
    rows, number = {}, 0
    for group in groups.subsets():
        members = sorted(group)
        name = next((names[place] for place in members if names[place]), None)
        if name is None:
            number += 1
            name = f"{'group' if len(members) > 1 else 'single'}-{number:05}"
        for place in members:
            if names[place]:
                method = "matched"
            elif len(members) > 1:
                method = "clustered"
            else:
                method = "alone" if images[place].comparable else "unknown"
            rows[place] = (str(images[place].path), name, method)
    in_order = [rows[place] for place in range(len(images))]
    return pd.DataFrame(in_order, columns=["path", "photograph", "method"], dtype=str)


def read_pictures(paths: Sequence[Path], mirrored: bool, what: str) -> list[Picture]:
    """Read pictures and find the features of their plain and, if `mirrored`, mirrored sides."""
    return in_threads(lambda path: read_picture(path, mirrored), paths, what)


def is_too_large(data: bytes) -> bool:
    """Whether an image, in the bytes of its file, is so large that it may be an attack, as
    validation judges it. OpenCV would take gigabytes for it, or end the stage.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf)
    except Image.DecompressionBombError:
        return True
    except Exception:  # OpenCV may read it, and says so if it cannot
        return False


def read_picture(path: Path, mirrored: bool) -> Picture:
    data = path.read_bytes()
    colour = None
    if data and not is_too_large(data):
        colour = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if colour is None:
        return Picture(path, (), np.zeros((0, 0), np.uint8), None)
    height, width = colour.shape[:2]
    size = (WIDTH, min(max(round(height * WIDTH / width), 32), 4 * WIDTH))
    grey = cv2.resize(
        cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY),
        size,
        interpolation=cv2.INTER_AREA if width > WIDTH else cv2.INTER_CUBIC,
    )
    # The edge of black fill is no feature.
    lit = cv2.erode((grey > DARK).astype(np.uint8) * 255, np.ones((13, 13), np.uint8))
    sides = [find_features(grey, lit)]
    if mirrored:
        side = find_features(cv2.flip(grey, 1), cv2.flip(lit, 1))
        side.points[:, 0] = WIDTH - 1 - side.points[:, 0]
        sides.append(side)
    half = (size[0] // SHRINK, size[1] // SHRINK)
    return Picture(
        path,
        tuple(sides),
        cv2.resize(grey, half, interpolation=cv2.INTER_AREA),
        hashlib.sha256(colour.tobytes()).hexdigest(),
    )


def find_features(grey: MatLike, lit: MatLike) -> Side:
    """Return the ORB features of grey values (height, width), looked for where `lit` is not 0."""
    for threshold in THRESHOLDS:
        detector = cv2.ORB.create(FEATURES, fastThreshold=threshold)
        keypoints, descriptors = detector.detectAndCompute(grey, lit)
        if len(keypoints) >= ENOUGH:
            break
    points = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
    return Side(points, np.zeros((0, 32), np.uint8) if descriptors is None else descriptors)


def likeness(picture: Picture, reference: Picture, candidate: Candidate) -> float:
    """Return the correlation, -1 to 1, of a picture with a reference that is warped onto it.

    It is that of the grey values; 0 if their features agree on no map.
    """
    affine = fit_map(picture.sides[candidate.side], reference.sides[candidate.reference_side])
    if affine is None:
        return 0.0
    middle = (SHRINK - 1) / 2  # a small pixel's centre lies between those of the large ones
    affine[:, 2] = (affine[:, 2] + affine[:, :2] @ [middle, middle] - middle) / SHRINK
    warped = cv2.warpAffine(reference.grey, affine, picture.grey.shape[::-1])
    both = (warped > DARK) & (picture.grey > DARK)
    if both.mean() < 0.25:
        return 0.0
    ours, theirs = picture.grey[both].astype(np.float32), warped[both].astype(np.float32)
    spread = float(ours.std() * theirs.std())
    if spread == 0:
        return 0.0
    return float(((ours - ours.mean()) * (theirs - theirs.mean())).mean()) / spread


def fit_map(side: Side, reference: Side) -> MatLike | None:
    """Return the affine map (2, 3) from a reference to a picture, both WIDTH wide.

    None if too few features agree on one, or if it shrinks or stretches too much.
    """
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
    nearest = matcher.knnMatch(side.descriptors, reference.descriptors, k=2)
    pairs = [
        matches[0]
        for matches in nearest
        # Clearly nearer than the second nearest
        if len(matches) == 2 and matches[0].distance < 0.8 * matches[1].distance
    ]
    if len(pairs) < FEWEST:
        return None
    affine, agree = cv2.estimateAffine2D(
        reference.points[[pair.trainIdx for pair in pairs]],
        side.points[[pair.queryIdx for pair in pairs]],
        method=cv2.RANSAC,
        ransacReprojThreshold=3,
        maxIters=500,
        confidence=0.99,
    )
    if affine is None or agree.sum() < FEWEST:
        return None
    largest, smallest = np.linalg.svd(affine[:, :2], compute_uv=False)
    return affine if largest <= SCALE[1] and smallest >= SCALE[0] else None


def find_candidates(
    pictures: Sequence[Picture],
    references: Sequence[Picture],
    sides: int,
    neighbours: int,
    most: int,
    what: str,
) -> list[list[Candidate]]:
    """Return for each picture its likeliest references, `most` or fewer, most votes first.

    Each feature of each side of a picture votes for the owners of its nearest features.

    Args:
        sides: of a reference that are looked among: 1 the plain one, 2 the mirrored one too.
        neighbours: nearest features that a feature votes for.
    """
    owners = [
        (place, side)
        for place, reference in enumerate(references)
        for side in range(min(sides, len(reference.sides)))
    ]
    descriptors = [references[place].sides[side].descriptors for place, side in owners]
    owner = np.repeat(np.arange(len(owners)), [len(part) for part in descriptors])
    if len(owner) < 2:
        return [[] for _ in pictures]
    # Locality-sensitive hashing (algorithm 6) with few, long keys: four times as fast as the usual
    # 6 tables of 12 bits, as good here.
    index = cv2.FlannBasedMatcher(
        {"algorithm": 6, "table_number": 4, "key_size": 16, "multi_probe_level": 0}, {}
    )
    index.add([np.concatenate(descriptors)])
    index.train()

    def vote(picture: Picture) -> list[Candidate]:
        ranked = []
        for side, features in enumerate(picture.sides):
            if not len(features.descriptors):
                continue
            nearest = index.knnMatch(features.descriptors, neighbours)
            voted_for = owner[[match.trainIdx for matches in nearest for match in matches]]
            for number, votes in zip(*np.unique(voted_for, return_counts=True), strict=True):
                place, reference_side = owners[number]
                if votes >= FEWEST_VOTES and references[place] is not picture:
                    ranked.append((-votes, place, reference_side, side))
        return [Candidate(*choice) for _, *choice in sorted(ranked)[:most]]

    return in_threads(vote, pictures, what)


def match(images: Sequence[Picture], photographs: Sequence[Picture]) -> list[str | None]:
    """Return the file name of each image's photograph, or None where none is like it.

    Photographs that overlap are named as the first of them.
    """
    if not photographs:
        return [None] * len(images)
    places, unknown = range(len(photographs)), [None] * len(photographs)
    overlapping = link(photographs, places, unknown, OVERLAP, "compare photographs")
    names = [photographs[min(overlapping.subset(place))].path.name for place in places]
    choices = find_candidates(images, photographs, 2, 1, PHOTOGRAPHS, "look up photographs")

    def best(job: tuple[Picture, list[Candidate]]) -> str | None:
        image, candidates = job
        scored = [
            (likeness(image, photographs[candidate.reference], candidate), candidate.reference)
            for candidate in candidates
        ]
        top, place = max(scored, default=(0.0, 0))
        return names[place] if top >= CORRELATION else None

    return in_threads(best, list(zip(images, choices, strict=True)), "match photographs")


def link(
    pictures: Sequence[Picture],
    queries: Sequence[int],
    names: Sequence[str | None],
    least: float,
    what: str,
) -> DisjointSet:
    """Return groups of pictures (by place) that show one photograph.

    Pictures of the same photograph (by `names`, None where it is unknown), or with the same pixels,
    are one group. Those at `queries` are compared with their likeliest candidates among all
    pictures, and joined where the likeness is `least` or more. Groups of two different photographs
    stay apart.
    """
    groups, name_of = DisjointSet(range(len(pictures))), list(names)  # name_of: by a group's root

    def join(one: int, other: int) -> None:
        known = {name_of[groups[one]], name_of[groups[other]]} - {None}
        if len(known) < 2:
            groups.merge(one, other)
            name_of[groups[one]] = next(iter(known), None)

    for marks in (names, [picture.digest for picture in pictures]):
        first_with: dict[str, int] = {}
        for place, mark in enumerate(marks):
            if mark:
                join(first_with.setdefault(mark, place), place)
    queries = [place for place in queries if pictures[place].sides]
    if not queries:
        return groups
    choices = find_candidates(
        [pictures[place] for place in queries], pictures, 1, 4, NEIGHBOURS, f"{what}: look up"
    )
    # What a round links costs no check in the next one.
    for number in range(1, NEIGHBOURS + 1):
        pairs = []
        for place, candidates in zip(queries, choices, strict=True):
            while candidates and groups.connected(candidates[0].reference, place):
                candidates.pop(0)
            if candidates:
                pairs.append((place, candidates.pop(0)))
        scores = in_threads(
            lambda pair: likeness(pictures[pair[0]], pictures[pair[1].reference], pair[1]),
            pairs,
            f"{what}: round {number}",
        )
        for (place, candidate), score in zip(pairs, scores, strict=True):
            if score >= least:
                join(place, candidate.reference)
    return groups


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], what: str
) -> list[Result]:
    """Return [function(item) for item in items], computed on all cores, with progress."""
    results, progress = [], Progress(what, len(items), "images")
    with ThreadPoolExecutor(cores()) as pool:
        for result in pool.map(function, items):
            results.append(result)
            progress.update(len(results))
    return results
