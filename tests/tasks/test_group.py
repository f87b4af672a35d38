"""Grouping by photograph, on drawn cells whose photograph is known, and on bad input."""

from collections import Counter
from math import comb

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hemotune.cells.dataset import draw_photograph, write_sample
from hemotune.photographs import group
from tests.conftest import ROOT, python


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """4 classes x 5 photographs x 5 copies, of the sample profile's size, and TEST_SIMPLE."""
    folder = tmp_path_factory.mktemp("sample")
    truth = write_sample(
        folder, photographs=5, copies=5, width=160, height=120, seed=11, processes=1
    )
    return folder, truth


def precision_recall(truth, found):
    """Return precision and recall over pairs of images that are in one group."""
    pairs = lambda groups: sum(comb(count, 2) for count in Counter(groups).values())  # noqa: E731
    both = pairs(zip(truth, found, strict=True))
    return both / max(pairs(found), 1), both / pairs(truth)


def run_group(folder):
    return python("tasks.group", cwd=folder, PYTHONPATH=str(ROOT))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_photographs_are_found(sample, share):
    """With all originals, with half of them (the rest is clustered), with none."""
    folder, truth = sample
    originals = sorted((folder / "photographs").iterdir())
    originals = originals[: round(share * len(originals))]
    table = group([folder / "images" / path for path in truth], originals)
    precision, recall = precision_recall(truth.values(), table["photograph"])
    assert precision >= 0.99 and recall >= 0.95
    matched = table["method"] == "matched"
    right = table["photograph"] == list(truth.values())
    if share:
        assert matched.mean() >= 0.9 * share and right[matched].mean() >= 0.99
    else:
        assert not matched.any()
        assert table["photograph"].str.fullmatch(r"(group|single)-\d{5}").all()
        assert (table["photograph"].str.startswith("single-") == (table["method"] == "alone")).all()
    assert table["path"].tolist() == [str(folder / "images" / path) for path in truth]


def test_one_image_per_photograph_is_alone(sample):
    folder, truth = sample
    one_each = {photograph: path for path, photograph in truth.items()}
    table = group([folder / "images" / path for path in one_each.values()])
    assert set(table["method"]) == {"alone"} and table["photograph"].is_unique
    assert table["photograph"].str.startswith("single-").all()


def test_overlapping_photographs_count_as_one(tmp_path):
    """One field taken twice: with two names the same cell could be in train and validation."""
    scene = Image.fromarray(draw_photograph(np.random.default_rng(4), "NEUTROPHIL", 400, 300))
    scene.crop((0, 0, 360, 270)).save(tmp_path / "a.png")
    scene.crop((40, 30, 400, 300)).save(tmp_path / "b.png")
    table = group(
        [tmp_path / "b.png", tmp_path / "a.png"], [tmp_path / "a.png", tmp_path / "b.png"]
    )
    assert table["photograph"].tolist() == ["a.png", "a.png"]
    assert set(table["method"]) == {"matched"}


def test_bad_pictures_are_unknown_and_equal_ones_together(tmp_path):
    (tmp_path / "empty.jpeg").write_bytes(b"")
    (tmp_path / "text.jpeg").write_text("not an image")
    for name, colour in [("black", 0), ("white", 255), ("white_again", 255), ("grey", 90)]:
        Image.new("RGB", (32, 24), (colour,) * 3).save(tmp_path / f"{name}.png")
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    Image.new("RGB", (9, 700), (200, 10, 10)).save(tmp_path / "tall.png")
    Image.new("1", (33_000, 33_000)).save(tmp_path / "bomb.png")  # OpenCV raises
    Image.new("1", (10_000, 9_000)).save(tmp_path / "large.png")  # OpenCV would read it
    paths = sorted(tmp_path.iterdir())
    table = group(paths, [tmp_path / "text.jpeg", tmp_path / "black.png"])
    table.index = [path.stem for path in paths]
    assert table.loc["white", "photograph"] == table.loc["white_again", "photograph"]
    assert table["photograph"].nunique() == len(paths) - 1
    assert table["method"].value_counts().to_dict() == {"unknown": len(paths) - 2, "clustered": 2}
    assert group([]).empty


@pytest.mark.slow
def test_stage(sample, tmp_path):
    """The stage as dvc runs it, twice: the same bytes."""
    folder, truth = sample
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw").symlink_to(folder)
    paths = [path for path in truth if not path.startswith("TRAIN")]
    pd.DataFrame({"path": paths, "split": [path.split("/")[0] for path in paths]}).to_parquet(
        tmp_path / "data/inventory.parquet"
    )
    done = run_group(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(paths)} images of 4 groups, 20 photographs to match: " in done.stdout
    assert "%]" in done.stdout
    first = (tmp_path / "data/photographs.parquet").read_bytes()
    table = pd.read_parquet(tmp_path / "data/photographs.parquet")
    assert table["path"].tolist() == paths
    assert list(table.columns) == ["path", "photograph", "method"]
    assert table["photograph"].tolist() == [truth[path] for path in paths]
    assert run_group(tmp_path).returncode == 0
    assert (tmp_path / "data/photographs.parquet").read_bytes() == first


def test_missing_input_names_the_fix(tmp_path):
    done = run_group(tmp_path)
    assert done.returncode == 1
    assert "inventory.parquet is missing" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "data").mkdir()
    pd.DataFrame({"path": ["TRAIN/A/x.jpeg"]}).to_parquet(tmp_path / "data/inventory.parquet")
    done = run_group(tmp_path)
    assert done.returncode == 1
    assert "TRAIN/A/x.jpeg" in done.stderr
    assert not (tmp_path / "data/photographs.parquet").exists()
