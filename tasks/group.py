"""Stage `group`: find which photograph each image came from, so that no split puts copies of one photograph on both sides.

Augmentation turns, shifts, shears, mirrors and rescales the brightness of a photograph. Local features (ORB, binary and fast) survive
that, but a mirror, so each reference is described twice, plain and mirrored. An image's features vote for the reference that holds
their nearest neighbours (one FLANN index over all of them); the references with most votes are checked: RANSAC fits the affine
map, the reference is laid over the image, and they are the same photograph if the grey values correlate. On the real data
true pairs correlate above 0.9 and all others below 0.6, so that the votes only need to propose, and the threshold is not delicate.

1. matched: against the original photographs, where the data set has them.
2. clustered: what is left, and everything when there are no originals, against all images; what correlates is one group, which takes
   over a matched image's photograph.
3. alone: nothing correlates. Also an image that cannot be read.
"""

import hashlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.errors import StudyError, entry_point
from tasks.files import new_file
from tasks.progress import Progress

WIDTH, SHRINK = 320, 4  # pixels: features are found at this width, correlation is taken at a quarter of it
FEATURES = 250  # of a picture
DARK = 24  # grey value up to which a pixel is black fill
CANDIDATES = 5  # references with most votes that are checked
FEWEST = 6  # votes, and features that must agree on one affine map
CORRELATION = 0.8
SCALE = (0.6, 1.7)  # singular values of a believable affine map


def group(image_paths, photograph_paths=()):
    """Tell which photograph each image came from.

    Args:
        image_paths: paths of the images, in any format OpenCV reads.
        photograph_paths: paths of original photographs; may be empty.

    Returns:
        DataFrame of path (as given, in that order), photograph (file name of the original, or cluster-00001 and so on) and
        method ("matched" | "clustered" | "alone").
    """
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pictures are shared out over threads instead: OpenCV runs outside Python's global lock
    try:
        photographs = [picture for picture in describe(photograph_paths, "read photographs") if picture["features"]]
        images = describe(image_paths, "read images")
        names = match(images, photographs)
        return name_groups(image_paths, names, cluster(images, names))
    finally:
        cv2.setNumThreads(threads)


def describe(paths, what):
    """Read pictures and find their features: a list of dicts, see describe_one."""
    return in_threads(describe_one, [(path,) for path in paths], what, "images")


def describe_one(path):
    """One picture: its small grey copy, its features' positions and descriptors, plain and mirrored, and a hash of its pixels."""
    import cv2

    colour = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if colour is None:
        return {"path": str(path), "features": 0, "hash": None}
    height, width = colour.shape[:2]
    size = (WIDTH, max(8, round(height * WIDTH / width)))
    grey = cv2.resize(cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY), size, interpolation=cv2.INTER_AREA if width > WIDTH else cv2.INTER_CUBIC)
    lit = cv2.erode((grey > DARK).astype(np.uint8) * 255, np.ones((13, 13), np.uint8))  # no features on the edge of black fill
    detector = cv2.ORB_create(FEATURES, fastThreshold=8)
    sides = []
    for mirrored in (False, True):
        picture, mask = (np.ascontiguousarray(side[:, ::-1]) if mirrored else side for side in (grey, lit))
        keys, descriptors = detector.detectAndCompute(picture, mask)
        points = np.array([key.pt for key in keys], np.float32).reshape(-1, 2)
        if mirrored:
            points[:, 0] = WIDTH - 1 - points[:, 0]
        sides.append((points, np.zeros((0, 32), np.uint8) if descriptors is None else descriptors))
    small = cv2.resize(grey, (size[0] // SHRINK, size[1] // SHRINK), interpolation=cv2.INTER_AREA)
    digest = hashlib.sha256(colour.tobytes()).hexdigest() + str(colour.shape)
    return {"path": str(path), "small": small, "sides": sides, "features": len(sides[0][0]), "hash": digest}


def same_photograph(image, reference):
    """Whether two described pictures overlap: a shared affine map under which their grey values correlate."""
    return any(correlation(image, reference, side) >= CORRELATION for side in reference["sides"])


def correlation(image, reference, side):
    """Correlation of grey values, -1 to 1, of `image` with `reference` laid over it by the features of `side`; 0 without a map."""
    import cv2

    (points, descriptors), (others, other_descriptors) = image["sides"][0], side
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(descriptors, other_descriptors, k=2)
    pairs = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < 0.8 * pair[1].distance]
    if len(pairs) < FEWEST:
        return 0.0
    source, target = others[[pair.trainIdx for pair in pairs]], points[[pair.queryIdx for pair in pairs]]
    affine, inliers = cv2.estimateAffine2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=3, maxIters=500, confidence=0.99)
    if affine is None or inliers.sum() < FEWEST:
        return 0.0
    scales = np.linalg.svd(affine[:, :2], compute_uv=False)
    if scales[0] > SCALE[1] or scales[1] < SCALE[0]:
        return 0.0
    middle = (SHRINK - 1) / 2  # a small pixel's centre lies between the large ones'
    affine[:, 2] = (affine[:, 2] + affine[:, :2] @ [middle, middle] - middle) / SHRINK
    laid = cv2.warpAffine(reference["small"], affine, image["small"].shape[::-1])
    both = (laid > DARK) & (image["small"] > DARK)
    if both.mean() < 0.3:
        return 0.0
    ours, theirs = image["small"][both].astype(np.float32), laid[both].astype(np.float32)
    spread = ours.std() * theirs.std()
    return float(((ours - ours.mean()) * (theirs - theirs.mean())).mean() / spread) if spread > 0 else 0.0


def proposals(pictures, references, neighbours, what):
    """For each picture, the places of the references whose features its own are nearest to, most votes first."""
    import cv2

    descriptors = [descriptors for reference in references for _, descriptors in reference["sides"]]
    owner = np.repeat(np.arange(len(references)), [sum(len(side[1]) for side in reference["sides"]) for reference in references])
    index, lock = cv2.FlannBasedMatcher({"algorithm": 6, "table_number": 4, "key_size": 16, "multi_probe_level": 0}, {}), threading.Lock()
    index.add([np.concatenate(descriptors)])
    index.train()

    def propose(picture):
        found = index.knnMatch(picture["sides"][0][1], neighbours)
        votes = np.bincount(owner[[match.trainIdx for matches in found for match in matches]], minlength=len(references))
        ranked = np.argsort(-votes, kind="stable")[: CANDIDATES + 1]
        return [int(place) for place in ranked if votes[place] >= FEWEST and references[place] is not picture][:CANDIDATES]

    return in_threads(propose, [(picture,) for picture in pictures], what, "images")
