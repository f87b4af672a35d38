"""`hemotune init`: what it writes passes the stages up to the training; bad input is one line."""

import re
import shutil
import zipfile

import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from hemotune.errors import StudyError
from hemotune.settings.__main__ import Profile, check
from hemotune.settings.params import Params
from hemotune.settings.reading import read, read_params
from hemotune.starting.choices import name_of
from hemotune.starting.machine import Machine
from hemotune.starting.writing import in_yaml
from tasks.download import __main__ as download
from tasks.group import __main__ as group
from tasks.prepare import __main__ as prepare
from tasks.validate import __main__ as validate
from tests.conftest import commit_workspace
from tests.tasks.pictures import picture, save


@pytest.fixture
def init(workspace, monkeypatch):
    """Run `hemotune init ARGUMENTS` in a workspace; return (status, output, errors)."""
    monkeypatch.chdir(workspace)

    def run(*arguments):
        done = CliRunner().invoke(app, ["init", *map(str, arguments)], catch_exceptions=False)
        return done.exit_code, done.stdout, done.stderr

    return run


def fill(folder, counts, names="{number}.png", size=(40, 30)):
    """Save `counts` {FOLDER: number} of pictures, all of them different."""
    seed = 0
    for place, count in counts.items():
        for number in range(count):
            seed += 1
            save(folder, f"{place}/{names.format(number=number)}", picture(seed, size))


def prepared():
    """Run the stages before the training; they pass."""
    return [stage.main() for stage in (download, validate, group, prepare)] == [0, 0, 0, 0]


def without_comment(path):
    """The lines of a YAML file that give a value and no comment."""
    lines = path.read_text().splitlines()
    return [line for line in lines if re.search(r"[:-] +[^ #]", line) and "#" not in line]


@pytest.mark.slow
def test_patients_in_file_names_and_images_of_all_kinds(init, workspace, capfd):
    for number, name in enumerate(("cat", "no", "it's: 1")):
        for patient in range(6):
            place, seed = f"{name}/{name[0]}{patient}", 10 * number + patient
            save(workspace / "mine", f"{place}_0.png", picture(seed, (60, 30)))
            save(workspace / "mine", f"{place}_1.png", picture(seed + 50, (40, 40)).convert("L"))
    (workspace / "mine/cat/c0_9.png").write_text("no image")
    save(workspace / "mine", "cat/c1_9.png", Image.new("RGB", (1, 1)))
    moving = [Image.new("P", (20, 20), colour) for colour in (0, 9)]
    moving[0].save(workspace / "mine/cat/c2_9.png", "GIF", save_all=True, append_images=moving[1:])
    shutil.copy(workspace / "mine/cat/c0_0.png", workspace / "mine/no/n0_9.png")
    status, output, errors = init("mine", "--groups", "{group}_*.png", "--force")
    assert status == 0, errors
    assert (
        "38 images of 3 classes" in output
        and "2 cannot be read" in output
        and "groups: 18" in output
    )

    params, profile = read_params("", Params), read(workspace / "profiles/mine.yaml", "", Profile)
    assert params.profile == "mine" and params.trainings == ["held-out-1"]
    assert profile.dataset.classes == ["cat", "it's: 1", "no"]
    assert profile.dataset.groups.pattern == "{group}_*.png"
    assert (profile.images.size, profile.images.fit) == (32, "pad")
    assert set(profile.validation.allowed_modes) == {"RGB", "L"}
    rules = profile.validation
    assert (rules.size, rules.unreadable, rules.duplicate_across) == ("off", "warning", "warning")
    assert profile.backbone.weights == "random"
    for file in ("params.yaml", "profiles/mine.yaml"):
        assert without_comment(workspace / file) == []
    assert prepared(), capfd.readouterr().err
    assert "18 groups, as given" in capfd.readouterr().out


@pytest.mark.slow
def test_plain_folders_and_nothing_is_lost(init, workspace):
    fill(workspace / "mine.d", {"A": 12, "B": 12}, names="{number:02}_x.png")
    assert init("mine.d")[0] == 1  # without git, params.yaml would be lost
    commit_workspace(workspace)
    status, output, errors = init("mine.d")
    assert status == 0, errors
    assert "have 12 beginnings such as 00" in output
    text = (workspace / "profiles/mine.yaml").read_text()
    assert 'groups: {pattern: "{group}_*"}' in text and "\n  groups:" not in text
    status, _, errors = init("mine.d")
    assert status == 1 and "profiles/mine.yaml exists: choose another name by --name" in errors
    status, _, errors = init("mine.d", "--name", "other")
    assert status == 1 and "params.yaml has changes that git does not have" in errors
    assert not (workspace / "profiles/other.yaml").exists()
    assert init("mine.d", "--name", "other", "--force")[0] == 0
    assert read_params("profile", str) == "other"
    check(workspace)


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_splits_of_other_names_and_images_without_a_class(init, workspace, packed):
    fill(workspace / "set", {"seg_train/A": 12, "seg_train/B": 10, "seg_test/A": 10, "pred": 3})
    fill(workspace / "set", {"seg_test/B": 10}, names="b{number}.png", size=(38, 30))
    source = "set"
    if packed:
        with zipfile.ZipFile(workspace / "set.zip", "w") as made:
            for path in sorted((workspace / "set").rglob("*.png")):
                made.write(path, path.relative_to(workspace))
        source = "set.zip"
    status, output, errors = init(source, "--force")
    assert status == 0, errors
    assert "splits: TEST 20, TRAIN 22" in output
    dataset = read(workspace / "profiles/set.yaml", "", Profile).dataset
    assert dataset.splits == {"seg_train": "train", "seg_test": "test"}
    assert dataset.unlabelled == ["pred"] and dataset.source == ("archive" if packed else "folder")
    assert download.main() == 0


@pytest.mark.slow
def test_folders_below_the_classes_are_groups(init, workspace):
    fill(workspace / "set", {"A/1": 5, "A/2": 6, "B/3": 12})
    status, output, errors = init("set", "--force")
    assert status == 0, errors
    assert "groups: 3" in output
    dataset = read(workspace / "profiles/set.yaml", "", Profile).dataset
    assert dataset.groups.pattern == "CLASS/{group}/*"
    # B has one group: no test of new groups
    assert read_params("", Params).trainings == ["random-1"]
    assert prepared()


BAD = {
    "nothing there": ("nowhere", (), "nowhere: there is no such file or folder"),
    "an empty folder": ("empty", (), "empty: no usable image (found: no files)"),
    "one class": ("one", (), "one: holds one class only, A; name the folder that holds"),
    "texts": ("texts", (), "texts: none of 2 images can be read: A/1.png is not a JPEG, PNG"),
    "two images": ("few", (), "few: class B has 2 images that can be read; a study needs 3 of"),
    "no zip": ("texts/A/1.png", (), "texts/A/1.png: is not a zip but"),
    "a pattern for nothing": ("two", ("--groups", "{group}+*"), "{group}+* matches no image"),
    "no pattern": ("two", ("--groups", "p_*"), "--groups: a pattern contains {group} once"),
    "no table": ("two", ("--groups", "no.csv"), "no.csv: cannot be read"),
    "drawn cells": ("two", ("--weights", "pretrain"), "should be random, imagenet, or a file"),
    "no weights": ("two", ("--weights", "no.keras"), "no.keras: there is no such file"),
    "no name": ("two", ("--name", "+"), "no profile can have this name; give one with --name"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(init, workspace, case):
    (workspace / "empty").mkdir()
    fill(workspace / "one", {"A": 2})
    fill(workspace / "two", {"A": 3, "B": 3})
    fill(workspace / "few", {"A": 3, "B": 2})
    for name in "AB":
        (workspace / "texts" / name).mkdir(parents=True)
        (workspace / "texts" / name / "1.png").write_text("a text")
    before = sorted(workspace.rglob("*")), (workspace / "params.yaml").read_text()
    path, options, expected = BAD[case]
    status, _, errors = init(path, *options, "--force")
    assert status == 1 and expected in errors
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert (sorted(workspace.rglob("*")), (workspace / "params.yaml").read_text()) == before


def test_names_and_yaml():
    assert name_of("/a/my set (2).zip") == "my-set-2"
    with pytest.raises(StudyError, match="no profile can have this name"):
        name_of("/")
    assert in_yaml(["a b", "no", "1", "x: y", "c.png", ""]) == '[a b, "no", "1", "x: y", c.png, ""]'


def test_a_faster_machine_takes_larger_images():
    slow, fast, gpu = (Machine("", speed) for speed in (20.0, 200.0, 0.0))
    for size in (32, 224):
        assert slow.rate_at(size) < fast.rate_at(size) < gpu.rate_at(size)
    assert fast.rate_at(224) < fast.rate_at(32)
