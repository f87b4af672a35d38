"""Drawn smears: same bytes for a seed, structure of the real data set, and its leak."""

import csv
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hemotune.cells import dataset as cells
from hemotune.cells.dataset import (
    CLASSES,
    augment,
    draw_photograph,
    draw_training_set,
    write_sample,
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    return folder, write_sample(
        folder, photographs=10, copies=6, width=80, height=60, seed=3, processes=1
    )


@pytest.mark.parametrize("cell_class", CLASSES)
def test_photograph_is_a_smear(cell_class):
    picture = draw_photograph(np.random.default_rng(5), cell_class, 160, 120)
    assert picture.shape == (120, 160, 3) and picture.dtype == np.uint8
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    assert np.median(green) > 120  # pale
    assert ((blue - green > 50) & (green < 130)).mean() > 0.005  # a violet nucleus
    assert ((red - blue > 15) & (green < 190)).mean() > 0.03  # red cells
    again = draw_photograph(np.random.default_rng(5), cell_class, 160, 120)
    assert np.array_equal(picture, again)
    other = draw_photograph(np.random.default_rng(6), cell_class, 160, 120)
    assert np.abs(picture.astype(int) - other).mean() > 5


def test_tiny_and_large_pictures_draw():
    for width, height in [(16, 16), (17, 40), (640, 480)]:
        picture = draw_photograph(np.random.default_rng(1), "MONOCYTE", width, height)
        assert picture.shape == (height, width, 3)


def test_augment_moves_on_black():
    white = np.full((60, 80, 3), 255, np.uint8)
    filled = [augment(np.random.default_rng(number), white).min(axis=2) for number in range(30)]
    assert all((image > 250).mean() > 0.5 for image in filled)  # most of the picture stays
    assert np.mean([(image == 0).mean() > 0.01 for image in filled]) > 0.8  # nearly all show black
    image = draw_photograph(np.random.default_rng(1), "EOSINOPHIL", 80, 60)
    assert np.array_equal(
        augment(np.random.default_rng(2), image), augment(np.random.default_rng(2), image)
    )


def test_training_set_does_not_depend_on_processes():
    images, labels = draw_training_set(12, 32, seed=7, processes=1)
    assert images.shape == (12, 32, 32, 3) and images.dtype == np.uint8
    assert Counter(labels.tolist()) == {0: 3, 1: 3, 2: 3, 3: 3} and labels.tolist() != sorted(
        labels
    )
    parallel, same = draw_training_set(12, 32, seed=7, processes=2)
    assert np.array_equal(images, parallel) and np.array_equal(labels, same)
    assert not np.array_equal(images, draw_training_set(12, 32, seed=8, processes=1)[0])


def test_worker_failure_is_not_silent():
    jobs = [(None, "BASOPHIL", 16, 16)] * 8
    with pytest.raises(Exception, match="returned non-zero exit status"):
        cells.in_processes(draw_photograph, jobs, "draw", "images", processes=2)


def test_sample_is_built_like_the_real_data(sample):
    folder, truth = sample
    files = sorted(
        path.relative_to(folder / "images").as_posix()
        for path in (folder / "images").rglob("*.jpeg")
    )
    assert files == list(truth)
    count = Counter(tuple(path.split("/")[:2]) for path in files)
    for cell_class in CLASSES:
        counts = [count[split, cell_class] for split in ("TRAIN", "TEST", "TEST_SIMPLE")]
        assert counts == [48, 12, 2]
    with open(folder / "truth.csv", newline="", encoding="utf-8") as file:
        assert {row["path"]: row["photograph"] for row in csv.DictReader(file)} == truth
    assert {path.name for path in (folder / "photographs").iterdir()} == set(truth.values())
    assert Image.open(folder / "images" / files[0]).size == (80, 60)


def test_no_photograph_in_both_train_and_test(sample):
    truth = sample[1]
    of = {
        split: {photograph for path, photograph in truth.items() if path.startswith(f"{split}/")}
        for split in ("TRAIN", "TEST", "TEST_SIMPLE")
    }
    assert not of["TRAIN"] & of["TEST"] and of["TEST"] == of["TEST_SIMPLE"]
    # One class each
    assert len({(photograph, path.split("/")[1]) for path, photograph in truth.items()}) == 40


def test_names_do_not_tell_the_photograph(sample):
    by_number = {}
    for path, photograph in sample[1].items():
        if path.startswith("TRAIN/"):
            by_number.setdefault((path.split("/")[1], path.split("_")[1]), set()).add(photograph)
    assert np.mean([len(photographs) for photographs in by_number.values()]) > 2


def test_same_seed_same_files(sample, tmp_path):
    folder, truth = sample
    assert write_sample(tmp_path, 10, 6, 80, 60, seed=3, processes=2) == truth
    for path in [*list(truth)[::7], "../truth.csv", "../photographs/PHOTO_00040.jpg"]:
        assert (tmp_path / "images" / path).read_bytes() == (folder / "images" / path).read_bytes()


def test_leak_shows(sample):
    """One nearest neighbour on colour histograms: certain when copies of a photograph are on both
    sides, weak when not.
    """
    folder, truth = sample
    paths = [path for path in truth if not path.startswith("TEST_SIMPLE")]
    pixels = [np.asarray(Image.open(folder / "images" / path)).astype(int) >> 5 for path in paths]
    histograms = np.sqrt([np.bincount((p @ [64, 8, 1]).ravel(), minlength=512) for p in pixels])
    label = np.array([path.split("/")[1] for path in paths])
    number = np.array([int(truth[path][6:11]) for path in paths])
    distance = np.square(histograms[:, None] - histograms[None]).sum(axis=2)

    def accuracy(fold):
        right = []
        for held in np.unique(fold):
            near = distance[np.ix_(fold == held, fold != held)].argmin(axis=1)
            right += (label[fold != held][near] == label[fold == held]).tolist()
        return np.mean(right)

    assert accuracy(np.random.default_rng(1).integers(5, size=len(paths))) > 0.97
    assert 0.3 < accuracy(number % 5) < 0.8
