"""A planted leak is found, a clean split is not accused; the entry point on tiny arrays."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hemotune import controls
from hemotune.errors import StudyError
from hemotune.evaluation import leaks
from hemotune.splits import ImageSplit
from tasks.controls.__main__ import main
from tests.conftest import ROOT, python

PHOTOGRAPHS, COPIES, SIZE = 40, 6, 32


def drawn(seed=0):
    """Return inventory, images and photographs whose colours do not depend on the class.

    Each photograph is copied, mirrored and with noise.
    """
    rng = np.random.default_rng(seed)
    images, rows = [], []
    for photograph in range(PHOTOGRAPHS):
        colour = rng.uniform(30, 220, 3)
        original = np.clip(colour + rng.normal(0, 25, (SIZE, SIZE, 3)), 0, 255)
        for copy in range(COPIES):
            images.append(
                np.clip(original[:: 1 - 2 * (copy % 2)] + rng.normal(0, 2), 0, 255).astype(np.uint8)
            )
            rows.append(
                (
                    f"ALL/{'AB'[photograph % 2]}/_{photograph}_{copy}.jpeg",
                    "AB"[photograph % 2],
                    f"p{photograph}",
                )
            )
    table = pd.DataFrame(rows, columns=["path", "class", "photograph"])
    return (
        table[["path", "class"]],
        np.stack(images),
        table[["path", "photograph"]].assign(method="matched"),
    )


def splits():
    """Return a split with copies of every photograph on both sides, and one without any."""
    rows = np.arange(PHOTOGRAPHS * COPIES)
    copy, photograph = rows % COPIES, rows // COPIES

    def split(name, train, test):
        return ImageSplit(
            protocol=name,
            repeat=1,
            seed=1,
            classes=["A", "B"],
            train=rows[train].tolist(),
            validation=rows[~(train | test)].tolist(),
            test=rows[test].tolist(),
        )

    return {
        "random": split("random", copy < 4, copy == 5),
        "held-out": split("held-out", photograph < 24, photograph >= 32),
    }


def alone(split, inventory, images, photographs=None):
    """The controls of one split."""
    return controls.controls_of([split], inventory, images, photographs)[split.protocol]


def brute_force(inventory, features, split):
    """The nearest neighbour, one distance at a time."""
    classes, right = inventory["class"].to_numpy(), 0
    for i in split.test:
        distances = [
            ((features[i].astype(float) - features[j].astype(float)) ** 2).sum()
            for j in split.train
        ]
        right += classes[split.train[int(np.argmin(distances))]] == classes[i]
    return right / len(split.test)


def test_a_planted_leak_is_found_and_a_clean_split_is_not_accused():
    inventory, images, photographs = drawn()
    found = controls.controls_of(list(splits().values()), inventory, images, photographs)
    leak, clean = found["random"], found["held-out"]
    assert leak.nearest_histogram.accuracy > 0.95
    assert clean.nearest_histogram.accuracy < 0.8
    assert leak.shared_photographs == leaks.SharedPhotographs(
        share=1.0, images=40, not_found=0, validation_share=1.0
    )
    assert clean.shared_photographs == leaks.SharedPhotographs(
        share=0.0, images=48, not_found=0, validation_share=0.0
    )


def test_folds_are_one_entry_over_all_their_test_images():
    """A photograph's copies are all in one fold, whose training images share none with them."""
    inventory, images, photographs = drawn()
    rows = np.arange(PHOTOGRAPHS * COPIES)
    fold = rows // COPIES % 8 // 3  # of 3, 3 and 2 eighths of the photographs
    folds = [
        ImageSplit(
            protocol=f"fold-{k + 1}",
            repeat=1,
            folds=3,
            seed=1,
            classes=["A", "B"],
            train=rows[fold != k][6:].tolist(),
            validation=rows[fold != k][:6].tolist(),
            test=rows[fold == k].tolist(),
        )
        for k in range(3)
    ]
    found = controls.controls_of(folds, inventory, images, photographs)
    assert list(found) == ["3 folds"]
    each = [controls.controls_of([one], inventory, images, photographs)["3 folds"] for one in folds]
    right = [one.nearest_histogram.accuracy * one.nearest_histogram.images for one in each]
    assert [one.nearest_histogram.images for one in each] == [90, 90, 60]
    assert found["3 folds"].nearest_histogram.accuracy == pytest.approx(sum(right) / 240)
    assert found["3 folds"].shared_photographs == leaks.SharedPhotographs(
        share=0.0, images=240, not_found=0, validation_share=0.0
    )


def test_controls_agree_with_numpy_by_hand():
    inventory, images, _ = drawn()
    code = (images // 32).astype(int) @ np.array([64, 8, 1])
    histograms = np.stack([np.bincount(c.ravel(), minlength=512) for c in code]) / SIZE**2
    for split in splits().values():
        got = alone(split, inventory, images)
        assert got.nearest_histogram.accuracy == pytest.approx(
            brute_force(inventory, np.sqrt(histograms), split)
        )
        assert got.majority_class == leaks.Control(
            accuracy=0.5, images=len(split.test), train_images=len(split.train)
        )
        assert got.shared_photographs is None


def test_histograms_count_every_pixel_in_its_bin():
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    got = controls.features_of(images, np.array([2, 0]))["nearest_histogram"]
    expected = [
        np.histogramdd(images[i].reshape(-1, 3), bins=8, range=[(0, 256)] * 3)[0].ravel() / 1024
        for i in (2, 0)
    ]
    np.testing.assert_allclose(got, np.sqrt(expected), atol=1e-6)


def test_thumbnails_are_means_of_areas():
    images = np.random.default_rng(1).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    got = controls.features_of(images, np.array([2, 0]))["nearest_thumbnail"]
    expected = images[[2, 0]].reshape(2, 12, 4, 12, 4, 3).mean(axis=(2, 4)).reshape(2, -1)
    np.testing.assert_allclose(got, expected, atol=0.51)


def test_thumbnails_find_an_image_again():
    inventory, images, _ = drawn()
    split = splits()["random"]
    again = np.concatenate([images, images[split.train]])
    more = pd.concat([inventory, inventory.iloc[split.train]], ignore_index=True)
    planted = split.model_copy(update={"test": list(range(len(images), len(again)))})
    assert alone(planted, more, again).nearest_thumbnail.accuracy == 1.0


def test_the_majority_is_that_of_the_training_images():
    inventory, images, _ = drawn()
    split = splits()["held-out"]
    only_b = [row for row in split.test if inventory["class"][row] == "B"]
    mostly_a = [row for row in split.train if inventory["class"][row] == "A"] + split.train[-1:]
    planted = split.model_copy(update={"train": mostly_a, "test": only_b})
    assert alone(planted, inventory, images).majority_class.accuracy == 0


def test_more_images_than_the_bound_are_drawn_and_the_number_is_stated(monkeypatch):
    inventory, images, photographs = drawn()
    monkeypatch.setattr(controls, "MOST_TRAIN", 30)
    monkeypatch.setattr(controls, "MOST_TEST", 10)
    got = alone(splits()["random"], inventory, images, photographs)
    assert (got.nearest_histogram.images, got.nearest_histogram.train_images) == (10, 30)
    assert got.shared_photographs.images == 40
    assert alone(splits()["random"], inventory, images, photographs) == got


def test_photographs_that_were_not_found_are_counted():
    inventory, images, photographs = drawn()
    photographs.loc[5, ["photograph", "method"]] = ["single-00005", "alone"]
    got = controls.shared_photographs(splits()["random"], inventory, photographs)
    assert (got.share, got.not_found) == (39 / 40, 1)


def test_distinct_pictures_without_originals_are_not_suspected():
    """Each resembles no other and so is a photograph of its own; only what could not be compared
    stays unknown.
    """
    inventory, _, photographs = drawn()
    photographs["photograph"] = [f"single-{row:05}" for row in range(len(photographs))]
    photographs["method"] = "alone"
    got = controls.shared_photographs(splits()["random"], inventory, photographs)
    assert (got.share, got.not_found) == (0, 0)
    assert leaks.known_share(got) == 0
    photographs["method"] = "unknown"
    got = controls.shared_photographs(splits()["random"], inventory, photographs)
    assert (got.share, got.not_found) == (0, 40)
    assert leaks.known_share(got) is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {"test": s.test + s.train[:1]}, "both train and test"),
        (lambda s: {"test": []}, "test is empty"),
        (lambda s: {"train": [9999]}, "rows outside"),
        (lambda s: {"train": [-1]}, "rows outside"),
    ],
)
def test_impossible_splits_are_refused(spoil, message):
    inventory, images, _ = drawn()
    with pytest.raises(StudyError, match=message):
        split = splits()["random"]
        alone(split.model_copy(update=spoil(split)), inventory, images)


def test_arrays_and_groups_that_do_not_fit_the_inventory_are_refused():
    inventory, images, photographs = drawn()
    with pytest.raises(StudyError, match="239 images"):
        alone(splits()["random"], inventory, images[1:])
    with pytest.raises(StudyError, match="lacks 1 images"):
        alone(splits()["random"], inventory, images, photographs.iloc[1:])


@pytest.mark.slow
def test_the_stage_writes_controls_of_every_split(tmp_path, monkeypatch, capsys):
    inventory, images, photographs = drawn()
    monkeypatch.chdir(tmp_path)
    Path("data/splits").mkdir(parents=True)
    assert main() == 1
    assert capsys.readouterr().err == "error: data/splits has no split: run `dvc repro prepare`\n"
    for split in [*splits().values(), splits()["random"].model_copy(update={"repeat": 2})]:
        Path(f"data/splits/{split.training}.json").write_text(split.model_dump_json())
    assert main() == 1
    missing = "error: data/inventory.parquet is missing: run `dvc repro`\n"
    assert capsys.readouterr().err == missing

    inventory.to_parquet("data/inventory.parquet")
    np.save("data/images.npy", images)
    done = python("tasks.controls", cwd=".", PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert "groups unknown" in done.stdout
    written = json.loads(Path("data/controls.json").read_text())
    assert written["random"]["shared_photographs"] is None
    assert (
        written["random"]["nearest_histogram"]["accuracy"]
        > 0.95
        > written["held-out"]["nearest_histogram"]["accuracy"] + 0.1
    )

    photographs.to_parquet("data/photographs.parquet")
    assert main() == 0
    grouped = json.loads(Path("data/controls.json").read_text())
    assert {name: entry["shared_photographs"]["share"] for name, entry in grouped.items()} == {
        "random": 1.0,
        "held-out": 0.0,
    }
    assert grouped["random"]["nearest_histogram"] == written["random"]["nearest_histogram"]


@pytest.mark.parametrize(
    ("shared", "known"),
    [
        (None, None),
        # No photograph was found: nobody knows
        ({"share": 0.0, "images": 40, "not_found": 40}, None),
        ({"share": 0.0, "images": 40, "not_found": 0}, 0.0),
        ({"share": 0.02, "images": 100, "not_found": 3}, 0.02),
        ({"share": 0.02, "images": 100, "not_found": 4}, None),
        ({"share": 0.5, "images": 40, "not_found": 20}, 0.5),
    ],
)
def test_a_share_is_known_only_where_enough_photographs_were_found(shared, known):
    assert leaks.known_share(shared and leaks.SharedPhotographs(**shared)) == known
