"""Stage prepare: who is trained on, validated on and tested on."""

import json
import sys

import pandas as pd
import pytest

from tests.conftest import commit_workspace, python, run, stand_in


def write_inventory(folder, counts):
    """Write data/inventory.parquet with `counts[(split, class)]` images, and photographs.parquet with five copies of each photograph."""
    rows = [
        {"path": f"{split}/{cell_class}/{number}.jpeg", "split": split, "class": cell_class, "readable": True}
        for (split, cell_class), count in counts.items()
        for number in range(count)
    ]
    (folder / "data").mkdir(exist_ok=True)
    inventory = pd.DataFrame(rows).sort_values("path", ignore_index=True)
    inventory.to_parquet(folder / "data" / "inventory.parquet")
    photographs = (
        inventory["split"] + inventory["class"] + inventory["path"].str.extract(r"(\d+)\.jpeg")[0].astype(int).floordiv(5).astype(str)
    )
    inventory[["path"]].assign(photograph=photographs, method="matched").to_parquet(folder / "data" / "photographs.parquet")
    return inventory


COUNTS = {("TRAIN", "A"): 50, ("TRAIN", "B"): 30, ("TEST", "A"): 10, ("TEST", "B"): 10, ("TEST_SIMPLE", "A"): 3}


def test_protocols_cut_as_they_say(workspace):
    inventory = write_inventory(workspace, COUNTS)
    (workspace / "params.yaml").write_text((workspace / "params.yaml").read_text().replace("[published]", "[published, held-out]"))
    result = python("tasks.prepare", cwd=workspace)
    assert result.returncode == 0, result.stderr
    published, held_out = (json.loads((workspace / f"data/splits/{name}.json").read_text()) for name in ("published", "held-out"))

    parts = [published[part] for part in ("train", "validation", "test")]
    assert sorted(sum(parts, [])) == inventory.index[inventory["split"] != "TEST_SIMPLE"].tolist()
    assert [len(part) for part in parts] == [64, 16, 20]
    # Stratified: class A has 60 of the 100 images, and 60 % of each part within a rounding.
    assert [round(inventory["class"][part].eq("A").mean(), 1) for part in parts] == [0.6, 0.6, 0.6]
    assert published["classes"] == ["A", "B"]

    assert held_out["test"] == inventory.index[inventory["split"] == "TEST"].tolist()
    assert sorted(held_out["train"] + held_out["validation"]) == inventory.index[inventory["split"] == "TRAIN"].tolist()
    assert len(held_out["train"]) == 65
    photographs = pd.read_parquet(workspace / "data/photographs.parquet")["photograph"]
    assert not set(photographs[held_out["train"]]) & set(photographs[held_out["validation"]])

    again = python("tasks.prepare", cwd=workspace)
    assert again.returncode == 0
    assert json.loads((workspace / "data/splits/published.json").read_text()) == published


@pytest.mark.parametrize(
    ("counts", "protocols", "expected"),
    [
        ({("ALL", "A"): 20, ("ALL", "B"): 20}, "held-out", "held-out needs a data set with TRAIN and TEST; this one has ALL"),
        (
            {("ALL", "A"): 20, ("ALL", "B"): 2},
            "published",
            "class B has 2 images to cut; 3 parts (train, validation, test) need at least one each",
        ),
        ({("TRAIN", "A"): 20, ("TRAIN", "B"): 5, ("TEST", "A"): 5}, "held-out", "class B has 1 photographs to cut; 2 parts"),
    ],
)
def test_impossible_splits_are_refused(workspace, counts, protocols, expected):
    write_inventory(workspace, counts)
    (workspace / "params.yaml").write_text((workspace / "params.yaml").read_text().replace("[published]", f"[{protocols}]"))
    result = python("tasks.prepare", cwd=workspace)
    assert result.returncode == 1
    assert expected in result.stderr
    assert not (workspace / "data/splits").exists()
    assert not list((workspace / "data").glob(".*"))


def test_held_out_added_to_a_finished_study_without_test_images_is_refused(workspace):
    write_inventory(workspace, {("ALL", "A"): 20, ("ALL", "B"): 20})
    commit_workspace(workspace)
    stand_in(workspace)
    (workspace / "params.yaml").write_text((workspace / "params.yaml").read_text().replace("[published]", "[published, held-out]"))
    result = run([sys.executable, "-m", "dvc", "repro", "prepare"], workspace)
    assert result.returncode != 0
    assert "held-out needs a data set with TRAIN and TEST; this one has ALL" in result.stderr


def test_unreadable_images_are_left_out(workspace):
    inventory = write_inventory(workspace, COUNTS)
    inventory.loc[[3, 40, 70], "readable"] = False
    inventory.to_parquet(workspace / "data" / "inventory.parquet")
    assert python("tasks.prepare", cwd=workspace).returncode == 0
    for protocol in ("published", "held-out"):
        split = json.loads((workspace / f"data/splits/{protocol}.json").read_text())
        used = split["train"] + split["validation"] + split["test"]
        assert not {3, 40, 70} & set(used)
        assert len(used) == 100 - sum(inventory["split"][[3, 40, 70]] != "TEST_SIMPLE")


def test_a_class_of_three_is_in_every_part(workspace):
    write_inventory(workspace, {("ALL", "A"): 40, ("ALL", "B"): 3})
    result = python("tasks.prepare", cwd=workspace)
    assert result.returncode == 0, result.stderr
    split = json.loads((workspace / "data/splits/published.json").read_text())
    classes = pd.read_parquet(workspace / "data/inventory.parquet")["class"]
    assert [classes[split[part]].eq("B").sum() for part in ("train", "validation", "test")] == [1, 1, 1]
