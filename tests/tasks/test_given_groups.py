"""Groups and a validation folder that the user gives, from the download to the splits."""

import json

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tasks.download import __main__ as download
from tasks.group import __main__ as group
from tasks.prepare import __main__ as prepare
from tasks.validate import __main__ as validate
from tests.conftest import TINY_PROFILE
from tests.tasks.pictures import picture, save


def use(workspace, **validation):
    """Point the workspace's profile to the images, with other rules."""
    profile = YAML(typ="safe", pure=True).load(TINY_PROFILE)
    profile["dataset"] = {
        "source": "folder",
        "path": "mine",
        "groups": {"pattern": "{group}_*.png"},
    }
    profile["validation"] |= {"smallest_class": 5, **validation}
    with open(workspace / "profiles/tiny.yaml", "w") as file:
        YAML().dump(profile, file)


@pytest.mark.slow
def test_from_the_download_to_the_splits(workspace, monkeypatch, capfd):
    monkeypatch.chdir(workspace)
    seed = 0
    for folder, patients in {"train": range(6), "val": range(6, 8), "test": [0, 8, 9]}.items():
        for patient in patients:
            for number in range(3):
                seed += 1
                name = f"{'AB'[patient % 2]}/p{patient}_{number}.png"
                save(workspace / "mine", f"{folder}/{name}", picture(seed, (40, 30)))
    use(workspace, small_class="off")
    assert download.main() == 0, capfd.readouterr().err
    assert "10 groups are given" in capfd.readouterr().out
    assert validate.main() == 1
    broken = capfd.readouterr().err
    assert "group_across: 6 found: TEST/A/p0_0.png (same group as TRAIN/A/p0_0.png)" in broken
    use(workspace, small_class="off", group_across="warning")
    assert validate.main() == 0
    assert "warning: " in capfd.readouterr().out

    assert group.main() == 0
    assert "33 images of 10 groups, as given" in capfd.readouterr().out
    table = pd.read_parquet(workspace / "data/photographs.parquet")
    assert set(table["method"]) == {"given"}
    names = table["path"].str.extract(r"/(p\d)_")[0]
    assert table["photograph"].tolist() == names.tolist()

    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("[random-1]", "[random-1, held-out-1]"))
    assert prepare.main() == 0, capfd.readouterr().err
    held_out = json.loads((workspace / "data/splits/held-out-1.json").read_text())
    for part in ("train", "validation", "test"):
        splits = table["path"][held_out[part]].str.partition("/")[0]
        assert set(splits) == {part.upper()}, part
    assert held_out["own_test"] and held_out["own_validation"]
    at_random = json.loads((workspace / "data/splits/random-1.json").read_text())
    assert sorted(sum((at_random[part] for part in ("train", "validation", "test")), [])) == list(
        range(33)
    )
