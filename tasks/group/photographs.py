"""Find which photograph each image came from, so that no split puts copies of one photograph on
both sides.

Augmentation turns, shifts, shears, mirrors and rescales the brightness of a photograph. Local
features (ORB: binary and fast) survive all of that but the mirror, so one side of each comparison
is described twice, plain and mirrored. An image's features vote for the references that hold their
nearest neighbours (one FLANN index over all of them); the few with most votes are checked: RANSAC
fits an affine map, the reference is laid over the image, and they are one photograph if enough
features agree and the grey values correlate. Of 60 real images, true pairs had 19 and more agreeing
features and correlated above 0.8, others at most 8 and 0.45; among drawn images, which show less, a
few false pairs reach 14 and 0.68. More than 99 % of the real images are matched, in 12 ms each.

1. matched: with an original photograph, where the data set has them. Photographs that overlap count
as one, under
   the first one's name: the real data holds 20 scenes that were taken twice, two of them once in
   TRAIN and once in TEST.
2. clustered: the images left over, and all of them when there are no originals, are compared with
all images in the same way. What
   is linked, over any number of steps, is one group; linked to a matched image it takes that one's
   photograph.
3. alone: nothing resembles it.
4. unknown: it cannot be read, or shows too little to be compared.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from hemotune.progress import Progress, cores

# Pixels: features are found at this width; grey values are compared at half of it
WIDTH, SHRINK = 320, 2
FEATURES = 150  # of a picture, the strongest
DARK = 24  # grey value up to which a pixel is black fill
FEWEST = 12  # features that agree on one affine map
# Of an image with another picture; of two photographs, which may differ in focus
CORRELATION, OVERLAP = 0.72, 0.6
SCALE = (0.6, 1.7)  # least and most that a believable map shrinks or stretches
# Candidates that are checked: photographs of an image, other images of an image
PHOTOGRAPHS, NEIGHBOURS = 3, 10


def group(image_paths, photograph_paths=()):
    """Tell which photograph each image came from.

    Args:
        image_paths: paths of the images, of any size, in any format OpenCV reads.
        photograph_paths: paths of the original photographs; may be empty, or lack some.

    Returns:
        DataFrame of path (str, as given and in that order), photograph (file name of the original,
        else group-00001 or, of one image, single-00002 and so on) and method ("matched" |
        "clustered" | "alone" | "unknown").
    """
    import cv2

    threads = cv2.getNumThreads()
    # OpenCV works outside Python's global lock: the pictures are shared out over threads instead
    cv2.setNumThreads(1)
    try:
        photographs = [
            picture
            for picture in describe(photograph_paths, True, "read photographs")
            if picture["sides"]
        ]
        overlaps = connect(photographs, range(len(photographs)), OVERLAP, "compare photographs")
        images = describe(image_paths, not photographs, "read images")
        matched = match(images, photographs) if photographs else [None] * len(images)
        matched = [place if place is None else overlaps[place] for place in matched]
        left = [place for place, photograph in enumerate(matched) if photograph is None]
        if photographs:
            for place, picture in zip(
                left,
                describe([image_paths[place] for place in left], True, "read the rest"),
                strict=True,
            ):
                images[place] = picture
        groups = connect(images, left, CORRELATION, "compare images", matched)
    finally:
        cv2.setNumThreads(threads)
    names = [None if place is None else Path(photographs[place]["path"]).name for place in matched]
    comparable = [
        bool(picture["sides"]) and len(picture["sides"][0][1]) >= FEWEST for picture in images
    ]
    return name_groups(image_paths, names, groups, comparable)


def name_groups(paths, names, groups, comparable):
    """The table of `group` from each image's photograph (or None), the place of its group's first
    image, and whether it shows enough.
    """
    members = {}
    for place, root in enumerate(groups):
        members.setdefault(root, []).append(place)
    rows, number = [None] * len(paths), 0
    for together in members.values():
        photograph = next((names[place] for place in together if names[place]), None)
        if photograph is None:
            number += 1
            photograph = f"{'group' if len(together) > 1 else 'single'}-{number:05}"
        for place in together:
            lone = "alone" if comparable[place] else "unknown"
            method = "matched" if names[place] else "clustered" if len(together) > 1 else lone
            rows[place] = (str(paths[place]), photograph, method)
    return pd.DataFrame(rows, columns=["path", "photograph", "method"], dtype=str)


def describe(paths, mirrored, what):
    """Read pictures and find their features, plain and if asked mirrored: a list of dicts, see
    describe_one.
    """
    return in_threads(lambda path: describe_one(path, mirrored), paths, what)


def describe_one(path, mirrored):
    """One picture: path, digest of its pixels, small grey copy, and for each side positions and
    descriptors of its features.
    """
    import cv2

    encoded = np.fromfile(path, np.uint8)
    colour = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
    if colour is None:
        return {"path": str(path), "sides": [], "digest": None}
    height, width = colour.shape[:2]
    size = (WIDTH, min(max(round(height * WIDTH / width), 32), 4 * WIDTH))
    grey = cv2.resize(
        cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY),
        size,
        interpolation=cv2.INTER_AREA if width > WIDTH else cv2.INTER_CUBIC,
    )
    # The edge of black fill is no feature
    lit = cv2.erode((grey > DARK).astype(np.uint8) * 255, np.ones((13, 13), np.uint8))
    detector = cv2.ORB_create(FEATURES, fastThreshold=8)
    sides = []
    for flip in (False, True)[: 1 + mirrored]:
        keys, descriptors = detector.detectAndCompute(
            *(cv2.flip(side, 1) if flip else side for side in (grey, lit))
        )
        points = np.array([key.pt for key in keys], np.float32).reshape(-1, 2)
        if flip:
            points[:, 0] = WIDTH - 1 - points[:, 0]
        sides.append((points, np.zeros((0, 32), np.uint8) if descriptors is None else descriptors))
    small = cv2.resize(grey, (size[0] // SHRINK, size[1] // SHRINK), interpolation=cv2.INTER_AREA)
    return {
        "path": str(path),
        "sides": sides,
        "small": small,
        "digest": hashlib.sha256(colour.tobytes()).hexdigest(),
    }


def likeness(picture, side, reference, reference_side):
    """Correlation, -1 to 1, of a picture's grey values with the reference laid over it; 0 if their
    features agree on no map.
    """
    import cv2

    (points, descriptors), (others, other_descriptors) = (
        picture["sides"][side],
        reference["sides"][reference_side],
    )
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(descriptors, other_descriptors, k=2)
    pairs = [
        pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < 0.8 * pair[1].distance
    ]
    if len(pairs) < FEWEST:
        return 0.0
    source, target = (
        others[[pair.trainIdx for pair in pairs]],
        points[[pair.queryIdx for pair in pairs]],
    )
    affine, agree = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=3, maxIters=500, confidence=0.99
    )
    if affine is None or agree.sum() < FEWEST:
        return 0.0
    stretch = np.linalg.svd(affine[:, :2], compute_uv=False)
    if stretch[0] > SCALE[1] or stretch[1] < SCALE[0]:
        return 0.0
    middle = (SHRINK - 1) / 2  # a small pixel's centre lies between those of the large ones
    affine[:, 2] = (affine[:, 2] + affine[:, :2] @ [middle, middle] - middle) / SHRINK
    laid = cv2.warpAffine(reference["small"], affine, picture["small"].shape[::-1])
    both = (laid > DARK) & (picture["small"] > DARK)
    if both.mean() < 0.25:
        return 0.0
    ours, theirs = picture["small"][both].astype(np.float32), laid[both].astype(np.float32)
    spread = float(ours.std() * theirs.std())
    return (
        float(((ours - ours.mean()) * (theirs - theirs.mean())).mean()) / spread
        if spread > 0
        else 0.0
    )


def propose(pictures, references, sides, neighbours, candidates, what):
    """For each picture the likeliest references: a list of (reference's place, its side, picture's
    side), most votes first.

    Each feature of each side of a picture votes for the owners of its `neighbours` nearest features
    on the references' first `sides`.
    """
    import cv2

    owners = [
        (place, side)
        for place, reference in enumerate(references)
        for side in range(min(sides, len(reference["sides"])))
    ]
    descriptors = [references[place]["sides"][side][1] for place, side in owners]
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

    def vote(picture):
        ranked = []
        for side, (_, query) in enumerate(picture["sides"]):
            found = index.knnMatch(query, neighbours) if len(query) else []
            hits, votes = np.unique(
                owner[[hit.trainIdx for hits in found for hit in hits]], return_counts=True
            )
            ranked += [
                (-int(count), *owners[hit], side)
                for hit, count in zip(hits, votes, strict=True)
                if count >= 3
            ]
        ranked = [choice[1:] for choice in sorted(ranked) if references[choice[1]] is not picture]
        return ranked[:candidates]

    return in_threads(vote, pictures, what)


def match(images, photographs):
    """The place of each image's photograph, or None where none is like it."""
    choices = propose(images, photographs, 2, 1, PHOTOGRAPHS, "look up photographs")

    def best(job):
        image, candidates = job
        scored = [
            (likeness(image, side, photographs[place], other), place)
            for place, other, side in candidates
        ]
        top, place = max(scored, default=(0.0, None))
        return place if top >= CORRELATION else None

    return in_threads(best, list(zip(images, choices, strict=True)), "match photographs")


def connect(pictures, queries, least, what, photographs=None):
    """Link the pictures at `queries` with any whose likeness is `least` or more.

    Returns:
        For each picture the first place of its group. Groups of two different `photographs` (by
        place, None: unknown) stay apart.
    """
    groups = list(range(len(pictures)))
    known = list(photographs) if photographs else [None] * len(pictures)

    def root(place):
        while groups[place] != place:
            groups[place] = place = groups[groups[place]]
        return place

    def join(one, other):
        first, second = sorted((root(one), root(other)))
        if known[first] is None or known[second] is None or known[first] == known[second]:
            groups[second] = first
            known[first] = known[second] if known[first] is None else known[first]

    first_of = {}
    # What needs no comparison: the same photograph, or the same pixels
    for place, picture in enumerate(pictures):
        for same in (("photograph", known[place]), ("digest", picture["digest"])):
            if same[1] is not None:
                join(first_of.setdefault(same, place), place)
    queries = [place for place in queries if pictures[place]["sides"]]
    if not queries:
        return [root(place) for place in range(len(pictures))]
    choices = propose(
        [pictures[place] for place in queries], pictures, 1, 4, NEIGHBOURS, f"{what}: look up"
    )
    # A round checks each picture's best candidate of another group, so that what is linked by then
    # costs no check.
    for number in range(1, NEIGHBOURS + 1):
        pairs = []
        for place, candidates in zip(queries, choices, strict=True):
            while candidates and root(candidates[0][0]) == root(place):
                candidates.pop(0)
            if candidates:
                pairs.append((place, *candidates.pop(0)))
        like = in_threads(
            lambda pair: likeness(pictures[pair[0]], pair[3], pictures[pair[1]], pair[2]),
            pairs,
            f"{what}: round {number}",
        )
        for pair, score in zip(pairs, like, strict=True):
            if score >= least:
                join(pair[0], pair[1])
    return [root(place) for place in range(len(pictures))]


def in_threads(function, items, what):
    """Return [function(item) for item in items], computed on all cores, with progress."""
    results, progress = [], Progress(what, len(items), "images")
    with ThreadPoolExecutor(cores()) as pool:
        for result in pool.map(function, items):
            results.append(result)
            progress.update(len(results))
    return results
