"""The audit through its command: planted copies, clean sets, odd files and bad input."""

import errno
import re
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from benchmarks.audit import ACCUSED, FOUND, TRUE, changed, draw, rates_of
from flows.cli import app
from tests.conftest import ROOT, python
from tests.tasks.pictures import fill, picture, save

SIZE = (240, 200)


def audit(*arguments):
    """Run the command here; returns (exit status, output, errors)."""
    done = CliRunner().invoke(app, ["audit", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def plant(folder, path, image, seed=1):
    """Save a turned, sheared and brightened copy of an image."""
    save(folder, path, Image.fromarray(changed(np.random.default_rng(seed), np.asarray(image))))


@pytest.fixture
def split(tmp_path):
    """Eight training and four test images of each of two classes, none a copy of another."""
    folder = tmp_path / "set"
    for number in range(24):
        place = f"{'train' if number < 16 else 'test'}/{'ab'[number % 2]}"
        save(folder, f"{place}/{number}.jpg", picture(number, SIZE), quality=90)
    return folder


def test_the_goals_hold_on_textured_photographs(tmp_path):
    """As benchmarks/audit.py on a thousand; here on less, for seconds."""
    draw(tmp_path / "set", distinct=40, copies=20, seed=3)
    rates = rates_of(tmp_path / "set")
    assert (rates.copies, rates.distinct) == (20, 20)
    assert rates.found >= FOUND and rates.true >= TRUE and rates.accused <= ACCUSED


def test_a_leak_is_named_first_and_shown_on_the_page(split, tmp_path):
    """Anywhere, without Prefect, DVC and Keras, and with nothing left behind."""
    plant(split, "test/a/<i>turned&.png", picture(0, SIZE))
    shutil.copy(split / "train/b/1.jpg", split / "test/b/same.jpg")
    save(split, "test/b/scaled.jpg", picture(3, SIZE).resize((180, 150)), quality=80)
    save(split, "train/b/other class.jpg", picture(2, SIZE), quality=70)
    save(split, "train/a/dot.png", Image.new("RGB", (1, 1)))
    save(split, "train/a/flat.png", Image.new("RGB", (300, 200), (9, 9, 200)))
    save(split, "test/a/flat too.png", Image.new("RGB", (300, 200), (200, 9, 9)))
    save(split, "train/a/bomb.png", Image.new("1", (20_000, 20_000)))
    save(split, "train/a/film.gif", picture(9), save_all=True, append_images=[picture(8)])
    (split / "train/a/text.png").write_text("no image")
    poison, page, left = tmp_path / "poison", tmp_path / "page.html", tmp_path / "temporary"
    for folder in (poison, left):
        folder.mkdir()
    for name in ("prefect", "dvc", "keras", "tensorflow"):
        (poison / f"{name}.py").write_text(f"raise RuntimeError('{name} was imported')")
    before = sorted(split.rglob("*"))
    done = python(
        "flows.cli", "audit", str(split), "--html", str(page), cwd=tmp_path,
        PYTHONPATH=f"{poison}:{ROOT}", TMPDIR=str(left),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("LEAK: 3 of 12 test images (25.0%) have a copy in training; the given")
    text = "\n".join(rest)
    for line in (
        "test/a/<i>turned&.png = train/a/0.jpg (turned, sheared, mirrored, cropped or brightened)",
        "test/b/same.jpg = train/b/1.jpg (identical files)",
        "test/b/scaled.jpg = train/b/3.jpg (nearly identical, as after saving again or scaling)",
        "train/a/2.jpg = train/b/other class.jpg (nearly identical, as after saving again or",
        "train/a/text.png: is not a JPEG, PNG, WebP, TIFF or BMP image",
        "train/a/bomb.png: ",
        "train/a/dot.png: 1 x 1",
        "not looked at: 1 .gif",
        "too small or flat to be compared",
        "split by group: measures how well new images are recognised",
    ):
        assert line in text, line
    assert "flat too.png =" not in text  # blue is no copy of red
    html = page.read_text()
    assert "&lt;i&gt;turned&amp;.png" in html and "<i>turned" not in html
    sources = re.findall(r'(?:src|href)="([^"]{30})', html)
    assert len(sources) >= 8 and all(source.startswith("data:image/jpeg;") for source in sources)
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", html)
    assert not list(left.iterdir()) and sorted(split.rglob("*")) == before


def test_a_clean_set_is_not_accused_as_folder_and_as_zip(split, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for path in split.rglob("*.jpg"):
            packed.write(path, path.relative_to(split))
    answers = [audit(path) for path in (split, tmp_path / "set.zip")]
    for code, output, errors in answers:
        assert code == 0
        assert output.startswith(
            "NO LEAK FOUND: none of 8 test images has a copy in training; the given split measures"
            " how well new images are recognised\n"
        )
        assert "[100%] decode 24/24" in errors and "[100%]" not in output
        assert "24 images of 2 classes, 24 groups" in output
    assert (
        answers[0][1].splitlines()[3:] == answers[1][1].replace("set.zip", "set").splitlines()[3:]
    )


def test_without_a_split_the_verdict_is_of_random_ones(tmp_path):
    for number in range(10):
        for copy in range(4):
            plant(tmp_path, f"{'ab'[number % 2]}/{number}-{copy}.png", picture(number, SIZE), copy)
    code, output, _ = audit(tmp_path)
    assert code == 0
    assert re.match(
        r"NO TEST: there is no given test set, and at random \d\d+% of the test images would have a"
        r" copy in training; cut by group to measure new images\n",
        output,
    )
    assert "random split: measures memory" in output
    assert "split by group: measures how well new images are recognised\n" in output
    assert "40 images of 2 classes, 10 groups" in output


def test_groups_and_splits_that_the_user_names_count(tmp_path):
    """A patient in two splits is a leak, though no picture of hers is a copy of another."""
    for number in range(24):
        patient = number // 2 if number != 23 else 0
        folder = "mine" if number < 16 else "yours"
        save(
            tmp_path,
            f"set/{folder}/{'ab'[number % 2]}/{patient}_{number}.png",
            picture(number, SIZE),
        )
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        "dataset: {source: folder, path: set, splits: {mine: train, yours: test},"
        " groups: {pattern: '{group}_*.png'}}\n"
    )
    code, output, errors = audit(tmp_path / "set", "--profile", profile)
    assert (code, output.partition(" has")[0]) == (1, "LEAK: 1 of 8 test images (12.5%)"), errors
    assert "yours/b/0_23.png = mine/a/0_0.png (of one group by their folders)" in output


def test_validation_and_group_folders_count(tmp_path):
    """SPLIT/CLASS/GROUP/images; a validation image that is learnt from is named, and no leak."""
    for number in range(18):
        split = ("train", "val", "test")[number // 6]
        image = picture(number, SIZE)
        name = "ab"[number % 2]
        save(tmp_path, f"set/{split}/{name}/{name}{number // 6}/{number}.png", image)
    plant(tmp_path, "set/val/a/a9/copy.png", picture(0, SIZE))
    code, output, errors = audit(tmp_path / "set")
    assert (code, output.partition(" has")[0]) == (0, "NO LEAK FOUND: none of 6 test images"), (
        errors
    )
    assert "among the validation images: 1\n  val/a/a9/copy.png = train/a/a0/0.png" in output
    assert "19 images of 2 classes, 6 groups" in output


def test_images_too_small_to_see_are_not_accused(tmp_path):
    """Handwritten digits of 8 x 8 pixels look alike; equal ones are copies all the same."""
    digits = load_digits()
    for number in range(120):
        place = f"{'train' if number < 80 else 'test'}/{digits.target[number]}"
        pixels = (digits.images[number] * 15.9).astype(np.uint8)
        save(tmp_path, f"{place}/{number}.png", Image.fromarray(pixels))
    code, output, _ = audit(tmp_path)
    assert code == 0 and output.startswith("NO LEAK FOUND")
    assert "as far as is seen: 100% of the test images cannot" in output.splitlines()[0]
    shutil.copy(tmp_path / "train/0/0.png", tmp_path / "test/0/again.png")
    code, output, _ = audit(tmp_path)
    assert code == 1 and output.startswith("LEAK: 1 of 41")


def broken_zip(path):
    path.write_bytes(b"PK\x03\x04 and no more")


BAD = {
    "no such": (lambda path: None, "there is no such file or folder"),
    "empty": (lambda path: path.mkdir(), "no usable image"),
    "one class": (lambda path: fill(path, {"train/a": 3, "test/a": 2}), "holds one class only, a"),
    "no class": (lambda path: fill(path, {".": 3}), "its layout is not supported"),
    "all broken": (
        lambda path: [
            save(path, f"{name}/0.png", picture(0)).write_text("no image") for name in "ab"
        ],
        "none of 2 images can be read: a/0.png is not a JPEG",
    ),
    "no zip": (lambda path: path.write_text("text"), "is not a zip"),
    "broken zip": (broken_zip, "is truncated"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_one_error_and_leaves_no_page(tmp_path, bad):
    make, message = BAD[bad]
    path, page = tmp_path / "input", tmp_path / "page.html"
    make(path)
    code, output, errors = audit(path, "--html", page)
    error = errors[errors.index("error: ") :]
    assert (code, output) == (2, "")
    assert error.startswith(f"error: {path}: ") and message in error and "Traceback" not in error
    assert error.count("\n") == 1 or bad == "no class"  # which lists the layouts
    assert not page.exists()


def test_a_page_that_cannot_be_written_is_refused_at_once(split, tmp_path):
    for page, message in ((tmp_path, "is a folder"), (tmp_path / "no/page.html", "no folder")):
        code, output, errors = audit(split, "--html", page)
        assert (code, output) == (2, "") and message in errors and "decode" not in errors


def test_a_full_disk_is_not_taken_for_a_leak(split, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hemotune.inventory.os.posix_fallocate", full)
    code, output, errors = audit(split)
    assert (code, output) == (2, "") and "the disk is full; free some space" in errors
