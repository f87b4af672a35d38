"""Stage prepare: which images are trained on, validated on and tested on."""

import itertools
import json
import sys

import numpy as np
import pandas as pd
import pytest

from hemotune.errors import StudyError
from hemotune.plan import plan
from hemotune.protocols import rows_by_protocol
from hemotune.settings.dataset import Selection
from hemotune.settings.reading import read_params
from hemotune.settings.split import Split
from hemotune.settings.trainings import parse
from hemotune.splits import read_split
from hemotune.whole_photographs import nearest_sum
from tasks.prepare import __main__ as prepare
from tests.conftest import commit_workspace, python, run, stand_in


def write_inventory(folder, counts):
    """Write an inventory of `counts[(split, class)]` images, five copies of each photograph."""
    rows = [
        {
            "path": f"{split}/{cell_class}/{number}.jpeg",
            "split": split,
            "class": cell_class,
            "readable": True,
        }
        for (split, cell_class), count in counts.items()
        for number in range(count)
    ]
    (folder / "data").mkdir(exist_ok=True)
    inventory = pd.DataFrame(rows).sort_values("path", ignore_index=True)
    inventory.to_parquet(folder / "data" / "inventory.parquet")
    photographs = (
        inventory["split"]
        + inventory["class"]
        + inventory["path"].str.extract(r"(\d+)\.jpeg")[0].astype(int).floordiv(5).astype(str)
    )
    inventory[["path"]].assign(photograph=photographs, method="matched").to_parquet(
        folder / "data" / "photographs.parquet"
    )
    return inventory


COUNTS = {
    ("TRAIN", "A"): 50,
    ("TRAIN", "B"): 30,
    ("TEST", "A"): 10,
    ("TEST", "B"): 10,
    ("TEST_SIMPLE", "A"): 3,
}


@pytest.mark.slow
def test_protocols_cut_as_described(workspace):
    inventory = write_inventory(workspace, COUNTS)
    (workspace / "params.yaml").write_text(
        (workspace / "params.yaml").read_text().replace("[random-1]", "[random-1, held-out-1]")
    )
    result = python("tasks.prepare", cwd=workspace)
    assert result.returncode == 0, result.stderr
    at_random, held_out = (
        json.loads((workspace / f"data/splits/{name}-1.json").read_text())
        for name in ("random", "held-out")
    )

    parts = [at_random[part] for part in ("train", "validation", "test")]
    assert sorted(sum(parts, [])) == inventory.index[inventory["split"] != "TEST_SIMPLE"].tolist()
    assert [len(part) for part in parts] == [64, 16, 20]
    # Stratified: class A has 60 of the 100 images, and 60 % of each part within a rounding.
    assert [round(inventory["class"][part].eq("A").mean(), 1) for part in parts] == [0.6, 0.6, 0.6]
    assert at_random["classes"] == ["A", "B"]

    assert held_out["test"] == inventory.index[inventory["split"] == "TEST"].tolist()
    assert (
        sorted(held_out["train"] + held_out["validation"])
        == inventory.index[inventory["split"] == "TRAIN"].tolist()
    )
    assert len(held_out["train"]) == 65
    assert "images that are not tested, has 18.8% (20.0% requested)" in result.stdout
    assert "furthest off is class B with 16.7%" in result.stdout
    photographs = pd.read_parquet(workspace / "data/photographs.parquet")["photograph"]
    assert not set(photographs[held_out["train"]]) & set(photographs[held_out["validation"]])

    again = python("tasks.prepare", cwd=workspace)
    assert again.returncode == 0
    assert json.loads((workspace / "data/splits/random-1.json").read_text()) == at_random


@pytest.mark.parametrize(
    ("counts", "protocols", "expected"),
    [
        (
            {("ALL", "A"): 20, ("ALL", "B"): 10},
            "held-out",
            "held-out needs 3 groups in each class, and class B has 2",
        ),
        (
            {("ALL", "A"): 20, ("ALL", "B"): 2},
            "random",
            "class B has too few images (2): train, validation, test need at least one each",
        ),
        (
            {("TRAIN", "A"): 20, ("TRAIN", "B"): 5, ("TEST", "A"): 5},
            "held-out",
            "held-out needs 2 groups in each class of the training images, and class B has 1",
        ),
        (
            {("TRAIN", "A"): 20, ("TRAIN", "B"): 20, ("TEST", "A"): 5, ("TEST", "C"): 5},
            "held-out",
            "held-out has no readable image to train on of class C",
        ),
        (
            {("TRAIN", "A"): 20, ("TRAIN", "B"): 20, ("TEST", "A"): 5},
            "held-out",
            "held-out has no readable image to test on of class B",
        ),
        (
            {("TEST_SIMPLE", "A"): 20, ("TEST_SIMPLE", "B"): 20},
            "random",
            "class A, B has readable images in TEST_SIMPLE alone",
        ),
        (
            {("TRAIN", "A"): 25, ("TRAIN", "B"): 15, ("TEST", "A"): 5, ("TEST", "B"): 5},
            "fold-2",
            "trainings: fold-2 needs 5 groups in each class (split.folds is 5), and class B"
            " has 4. Add images, lower split.folds, leave",
        ),
        (
            {("TRAIN", "A"): 50, ("TRAIN", "B"): 50},
            "fold-6",
            "trainings: fold-6-1: the profile's split.folds is 5",
        ),
    ],
)
def test_impossible_splits_are_refused(workspace, monkeypatch, capfd, counts, protocols, expected):
    write_inventory(workspace, counts)
    (workspace / "params.yaml").write_text(
        (workspace / "params.yaml").read_text().replace("[random-1]", f"[{protocols}-1]")
    )
    monkeypatch.chdir(workspace)
    assert prepare.main() == 1
    assert expected in capfd.readouterr().err
    assert not (workspace / "data/splits").exists()
    assert not list((workspace / "data").glob(".*"))


@pytest.mark.slow
def test_folds_added_to_a_finished_study_with_few_photographs_are_refused(workspace):
    write_inventory(workspace, {("ALL", "A"): 20, ("ALL", "B"): 5})
    commit_workspace(workspace)
    stand_in(workspace)
    (workspace / "params.yaml").write_text(
        (workspace / "params.yaml").read_text().replace("[random-1]", "[random-1, fold-1-1]")
    )
    result = run([sys.executable, "-m", "dvc", "repro", "prepare"], workspace)
    assert result.returncode != 0
    assert (
        "fold-1 needs 5 groups in each class (split.folds is 5), and class A has 4" in result.stderr
    )


@pytest.mark.slow
def test_one_more_repeat_is_one_more_training(workspace):
    write_inventory(workspace, COUNTS)
    commit_workspace(workspace)
    stand_in(workspace)
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["repro", "--force", "--single-item", "prepare"], ["commit", "--force"]):
        assert run([*dvc, *command], workspace).returncode == 0
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("[random-1]", "[random-1, random-2]"))
    assert run([*dvc, "repro", "--single-item", "prepare"], workspace).returncode == 0
    changed = json.loads(run([*dvc, "status", "--json"], workspace).stdout)
    tuned = sorted(stage for stage in changed if stage.startswith("finetune"))
    assert tuned == ["finetune@deep-MobileNet-random-2", "finetune@narrow-MobileNet-random-2"]


def test_repeats_use_the_cuts_of_the_profile_in_turn(workspace, monkeypatch, capfd):
    write_inventory(workspace, {("ALL", "A"): 50, ("ALL", "B"): 60})
    params = workspace / "params.yaml"
    profile = workspace / f"profiles/{read_params('profile', str, workspace)}.yaml"
    entries = [
        f"{protocol}-{r}" for protocol in ("random", "held-out", "fold-1") for r in (1, 2, 3)
    ]
    params.write_text(params.read_text().replace("[random-1]", f"[{', '.join(entries)}]"))
    profile.write_text(profile.read_text().replace("split: {", "split: {repeats: 2, folds: 3, "))
    monkeypatch.chdir(workspace)
    assert prepare.main() == 0
    assert "random, cut 2: 70 train, 18 validation, 22 test images" in capfd.readouterr().out
    for protocol in ("random", "held-out", "fold-1"):
        one, two, three = (
            read_split(workspace / f"data/splits/{protocol}-{r}.json") for r in (1, 2, 3)
        )
        assert (one.cut, two.cut, three.cut) == (1, 2, 1)
        assert three.model_copy(update={"repeat": 1}) == one
        assert two.test != one.test and two.seed == one.seed + 1
    params.write_text(params.read_text().replace(", ".join(entries), "random-1"))
    assert prepare.main() == 1
    assert "split.repeats is 2, but no protocol has a repeat 2" in capfd.readouterr().err


def test_a_validation_folder_without_a_test_is_validated_on(workspace, monkeypatch):
    counts = {("TRAIN", "A"): 50, ("TRAIN", "B"): 30, ("VALIDATION", "A"): 10}
    inventory = write_inventory(workspace, counts | {("VALIDATION", "B"): 5})
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("[random-1]", "[held-out-1]"))
    monkeypatch.chdir(workspace)
    assert prepare.main() == 0
    found = read_split(workspace / "data/splits/held-out-1.json")
    assert found.validation == inventory.index[inventory["split"] == "VALIDATION"].tolist()
    assert len(found.test) == 15 and len(found.train) == 65
    assert found.own_validation and not found.own_test


def test_each_photograph_is_tested_by_one_fold(workspace, monkeypatch, capfd):
    counts = {("TRAIN", "A"): 80, ("TRAIN", "B"): 60, ("TEST", "A"): 20, ("TEST", "B"): 30}
    inventory = write_inventory(workspace, counts | {("TEST_SIMPLE", "A"): 3})
    params = workspace / "params.yaml"
    entries = [f"fold-{k}-{repeat}" for k in range(1, 6) for repeat in (1, 3)]
    params.write_text(params.read_text().replace("[random-1]", f"[{', '.join(entries)}]"))
    monkeypatch.chdir(workspace)
    assert prepare.main() == 0
    files = [json.loads((workspace / f"data/splits/{entry}.json").read_text()) for entry in entries]
    first, third = files[::2], files[1::2]
    assert [dict(one, repeat=1) for one in third] == first
    assert [one["protocol"] for one in first] == [f"fold-{k}" for k in range(1, 6)]

    known = pd.read_parquet(workspace / "data/photographs.parquet")["photograph"]
    used = inventory.index[inventory["split"] != "TEST_SIMPLE"].tolist()
    assert sorted(row for one in first for row in one["test"]) == used
    for one in first:
        parts = [one["train"], one["validation"], one["test"]]
        assert sorted(sum(parts, [])) == used
        assert sum(len(set(known[part])) for part in parts) == known[used].nunique()
        # 20 and 18 photographs of five images each in five folds
        assert inventory["class"][one["test"]].value_counts()["A"] == 20
        assert 15 <= inventory["class"][one["test"]].value_counts()["B"] <= 20
        assert inventory["class"][one["validation"]].value_counts()["A"] == 15
    printed = capfd.readouterr().out
    assert printed.count("fold-2: test has A 20.0% (4 of 20 groups), B ") == 1
    assert "; more than 5% off an equal share: B" in printed

    seeds = {read_split(path).training_seed(7) for path in (workspace / "data/splits").iterdir()}
    assert seeds == {1000 * k + 7 + repeat - 1 for k in range(1, 6) for repeat in (1, 3)}


def test_held_out_is_cut_by_photograph_where_there_is_no_test(workspace, monkeypatch, capfd):
    write_inventory(workspace, {("ALL", "A"): 100, ("ALL", "B"): 50})
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("[random-1]", "[held-out-1]"))
    monkeypatch.chdir(workspace)
    assert prepare.main() == 0
    split = read_split(workspace / "data/splits/held-out-1.json")
    known = pd.read_parquet(workspace / "data/photographs.parquet")["photograph"]
    parts = [split.train, split.validation, split.test]
    assert [len(part) for part in parts] == [95, 25, 30]
    assert sum(len(set(known[part])) for part in parts) == known.nunique()
    assert not split.own_test
    assert "held-out: test has 20.0% (20.0% requested)" in capfd.readouterr().out


def test_unreadable_images_are_left_out(workspace, monkeypatch, capfd):
    inventory = write_inventory(workspace, COUNTS)
    inventory.loc[[3, 40, 70], "readable"] = False
    inventory.to_parquet(workspace / "data" / "inventory.parquet")
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("[random-1]", "[random-1, held-out-1]"))
    monkeypatch.chdir(workspace)
    assert prepare.main() == 0
    assert "left out as unreadable: 3 images" in capfd.readouterr().out
    for protocol in ("random", "held-out"):
        split = json.loads((workspace / f"data/splits/{protocol}-1.json").read_text())
        used = split["train"] + split["validation"] + split["test"]
        assert not {3, 40, 70} & set(used)
        assert len(used) == 100 - sum(inventory["split"][[3, 40, 70]] != "TEST_SIMPLE")
    inventory.assign(readable=False).to_parquet(workspace / "data" / "inventory.parquet")
    assert prepare.main() == 1
    assert "no image is readable" in capfd.readouterr().err


def test_a_class_of_three_is_in_every_part(workspace, monkeypatch):
    write_inventory(workspace, {("ALL", "A"): 40, ("ALL", "B"): 3})
    monkeypatch.chdir(workspace)
    assert prepare.main() == 0
    split = json.loads((workspace / "data/splits/random-1.json").read_text())
    classes = pd.read_parquet(workspace / "data/inventory.parquet")["class"]
    for part in ("train", "validation", "test"):
        assert classes[split[part]].eq("B").sum() == 1


def test_the_cut_is_as_near_to_the_requested_share_as_photographs_allow():
    random = np.random.default_rng(2)
    for _ in range(300):
        numbers = random.integers(1, 30, random.integers(2, 9)).tolist()
        wanted = random.uniform(0, 1) * sum(numbers)
        chosen = nearest_sum(numbers, wanted)
        assert 0 < len(set(chosen)) == len(chosen) < len(numbers)
        subsets = itertools.chain(
            *(itertools.combinations(numbers, length) for length in range(1, len(numbers)))
        )
        best = min(abs(sum(subset) - wanted) for subset in subsets)
        assert abs(sum(numbers[place] for place in chosen) - wanted) == pytest.approx(best)
    for numbers in ([1] * 50_000, [8] * 20_000, random.integers(1, 3000, 3000).tolist()):
        chosen = nearest_sum(numbers, 0.2 * sum(numbers))
        assert abs(sum(numbers[place] for place in chosen) - 0.2 * sum(numbers)) <= min(numbers)


def rows_of(protocol, inventory, photographs, split):
    """The rows of each part under one protocol."""
    return rows_by_protocol([parse(f"{protocol}-1")], inventory, photographs, split)[protocol]


def one_split(classes):
    """Return an inventory of TRAIN and TEST, and its photographs.

    Args:
        classes: {class: [numbers of images of TRAIN's photographs]}.
    """
    rows = [
        ("TRAIN", name, f"{name}{photograph}")
        for name, sizes in classes.items()
        for photograph, size in enumerate(sizes)
        for _ in range(size)
    ]
    rows += [("TEST", name, f"test {name}{n}") for name in classes for n in range(5)]
    inventory = pd.DataFrame(rows, columns=["split", "class", "photograph"])
    return inventory, inventory["photograph"]


def test_validation_is_cut_by_images_and_not_by_photographs():
    """By photographs, one of the two large ones in validation made it half of the class."""
    classes = {"A": [100, 100] + [5] * 18, "B": [60] + [3] * 40}
    shares = []
    for seed in range(5):
        inventory, photographs = one_split(classes)
        parts = rows_of("held-out", inventory, photographs, Split(seed=seed))
        trained = inventory.loc[parts["train"] + parts["validation"], "class"].value_counts()
        shares.append(inventory.loc[parts["validation"], "class"].value_counts() / trained)
        assert not set(photographs[parts["train"]]) & set(photographs[parts["validation"]])
        assert parts == rows_of("held-out", inventory, photographs, Split(seed=seed))
    assert (abs(pd.concat(shares) - 0.2) < 0.02).all()


def made_up_layout(random):
    """Return paths of a made-up source, patterns that include some and ones that exclude some."""
    splits = ["", "train/", "test/", "val/", "test_simple/", "Training/"]
    splits = random.choice(splits, random.integers(1, 4), replace=False)
    classes = random.choice(["A", "B", "C [1]", "d"], random.integers(1, 4), replace=False)
    paths = [
        f"set/{split}{name}/{n}{random.choice(['.png', '.gif'], p=[0.95, 0.05])}"
        for split in splits
        for name in classes
        for n in range(random.choice([0, 1, 3, 8]))
    ]
    patterns = ["*/A/*", "*/B/*", "*/C [1]/*", "*/test/*", "*train*", "*/?.png", "*.png", "*[1]*"]
    include, exclude = (
        random.choice(patterns, random.choice([0, 0, 1, 3]), replace=False).tolist()
        for _ in range(2)
    )
    return paths, include, exclude


@pytest.mark.slow
def test_no_layout_include_or_exclude_leaves_a_part_without_a_class():
    """Every split that prepare accepts has images of each class in each part."""
    random, ends = np.random.default_rng(3), {"source refused": 0, "split refused": 0, "split": 0}
    for _ in range(300):
        paths, include, exclude = made_up_layout(random)
        try:
            targets = plan(
                "source", paths, selection=Selection(include=include, exclude=exclude)
            ).targets
        except StudyError as error:
            assert str(error).startswith("source: ")
            ends["source refused"] += 1
            continue
        inventory = pd.DataFrame(
            sorted(target.split("/")[1:] for target in targets.values()),
            columns=["split", "class", "name"],
        )
        readable = random.random(len(inventory)) < random.choice([0.3, 1])
        inventory = inventory[readable]
        photographs = inventory["split"] + inventory["class"] + inventory["name"].str[-5]
        for protocol in ("random", "held-out", "fold-1", "fold-3"):
            if inventory.empty:  # main refuses that
                continue
            try:
                parts = rows_of(protocol, inventory, photographs, Split(folds=3))
            except StudyError:
                ends["split refused"] += 1
                continue
            ends["split"] += 1
            for rows in parts.values():
                assert set(inventory["class"].loc[rows]) == set(inventory["class"])
            assert len(sum(parts.values(), [])) == len(set(sum(parts.values(), [])))
    assert all(count > 20 for count in ends.values()), ends
