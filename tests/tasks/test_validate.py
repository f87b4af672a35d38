"""Validate: the rules, the page, and the stage as a user runs it."""

import json
import re
import shutil
from dataclasses import asdict
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hemotune import inventory
from hemotune.settings.validation import Validation
from tasks.validate import __main__ as validate
from tasks.validate.expectations import judge
from tasks.validate.page import write_page
from tasks.validate.rules import rules_for
from tasks.validate.summary import describe_broken_rules
from tasks.validate.tables import common_size, tables_of
from tests.conftest import ROOT, python
from tests.tasks.neutral import foreign
from tests.tasks.pictures import fill, picture, save, take


def judged(folder, tmp_path, **changed):
    rows, folders = take(folder, tmp_path / "images.npy")
    tables = tables_of(rows, folders, 10)
    result = judge(tables, rules_for(Validation(**changed), common_size(tables.decoded)))
    return result, {rule.rule: rule for rule in result.rules}, tables


@pytest.mark.slow
def test_good_images_pass_and_test_simple_may_be_small(tmp_path):
    fill(
        tmp_path / "images",
        {"TRAIN/A": 10, "TRAIN/B": 10, "TEST/A": 10, "TEST/B": 10, "TEST_SIMPLE/A": 1},
    )
    result, rules, _ = judged(tmp_path / "images", tmp_path)
    assert result.verdict == "passed"
    assert all(rule.passed and rule.count == 0 for rule in rules.values())
    assert result.great_expectations["decoded"]["success_percent"] == 100
    json.dumps(asdict(result), allow_nan=False)


def test_one_class_empty_classes_and_imbalance(tmp_path):
    fill(tmp_path / "images", {"ALL/A": 12})
    (tmp_path / "images/ALL").mkdir(exist_ok=True)
    _, rules, _ = judged(tmp_path / "images", tmp_path)
    assert not rules["classes"].passed and rules["classes"].severity == "error"
    (tmp_path / "images/ALL/B").mkdir()
    fill(tmp_path / "images", {"ALL/C": 3}, start=100)
    result, rules, _ = judged(tmp_path / "images", tmp_path, imbalance="error", small_class="off")
    assert result.verdict == "failed"
    assert rules["classes"].passed
    assert rules["empty_class"].offenders == ["ALL/B"]
    assert rules["imbalance"].offenders == ["ALL/C"] and rules["imbalance"].details == ["1 to 4.0"]
    assert rules["small_class"].found.startswith("not judged") and rules["small_class"].passed


def test_different_sizes_and_other_modes_where_the_profile_allows_them(tmp_path):
    fill(tmp_path / "images", {"ALL/A": 10, "ALL/B": 10})
    save(tmp_path / "images", "ALL/A/large.png", picture(50, (300, 200)))
    save(tmp_path / "images", "ALL/B/grey.png", picture(51).convert("L"))
    result, rules, tables = judged(tmp_path / "images", tmp_path)
    assert result.verdict == "failed"
    # The page of any images: nothing that is about blood, and no splits where there are none.
    write_page(tmp_path / "index.html", result, tables, np.load(tmp_path / "images.npy"))
    text = re.sub('data:[^"]*', "", (tmp_path / "index.html").read_text())
    assert not foreign(text + describe_broken_rules(result, "error")), foreign(text)
    assert "22 images, 2 classes." in text
    assert rules["size"].offenders == ["ALL/A/large.png"] and rules["size"].details == ["300x200"]
    assert rules["mode"].offenders == ["ALL/B/grey.png"]
    result, _, _ = judged(tmp_path / "images", tmp_path, size="off", allowed_modes=["RGB", "L"])
    assert result.verdict == "passed"


def test_a_missing_value_does_not_slip_through(tmp_path):
    fill(tmp_path / "images", {"ALL/A": 11, "ALL/B": 11})
    rows, folders = take(tmp_path / "images", tmp_path / "images.npy")
    rows.loc[3, ["width", "sha256"]] = None
    # Of a file that cannot be read nobody knows the width
    rows.loc[5, ["readable", "width"]] = False, None
    result = judge(tables_of(rows, folders, 10), rules_for(Validation(unreadable="off"), "160x120"))
    (broken,) = [rule for rule in result.rules if not rule.passed]
    assert (broken.rule, broken.offenders, broken.details) == (
        "complete",
        [rows.at[3, "path"]],
        ["lacks width, sha256"],
    )


@pytest.mark.parametrize("severity", ["error", "warning"])
def test_a_rule_that_great_expectations_cannot_judge_has_not_passed(tmp_path, severity):
    fill(tmp_path / "images", {"ALL/A": 10, "ALL/B": 10})
    rows, folders = take(tmp_path / "images", tmp_path / "images.npy")
    tables = tables_of(rows, folders, 10)
    tables.folders["images"] = "many"  # no number, so that comparing it raises
    result = judge(tables, rules_for(Validation(small_class=severity), "160x120"))
    (failed,) = [rule for rule in result.rules if not rule.passed]
    assert failed.rule == "small_class" and failed.found.startswith("could not be judged: ")
    assert result.verdict == {"error": "failed", "warning": "warnings"}[severity]
    assert "small_class: could not be judged: " in describe_broken_rules(result, severity)
    write_page(tmp_path / "index.html", result, tables, np.load(tmp_path / "images.npy"))
    assert "could not be judged" in (tmp_path / "index.html").read_text()


def broken(folder, *places, count=3):
    for place in places:
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / place / f"broken{number}.jpeg").write_text("text")


def test_a_class_or_split_of_broken_files_stops_the_study_whatever_is_a_warning(tmp_path):
    lenient = dict.fromkeys(
        ("unreadable", "size", "mode", "duplicate_across", "small_class", "imbalance"), "off"
    )
    images = tmp_path / "images"
    fill(images, {"TRAIN/A": 10, "TRAIN/B": 10, "TEST/B": 10, "TEST_SIMPLE/D": 2})
    broken(images, "TRAIN/C", "TEST/A")
    result, rules, _ = judged(images, tmp_path, **lenient)
    found = dict(zip(rules["empty_class"].offenders, rules["empty_class"].details, strict=True))
    assert result.verdict == "failed"
    assert found == {
        "TEST/A": "none of 3 files is readable: is not a JPEG, PNG, WebP, TIFF or BMP image",
        "TRAIN/C": "none of 3 files is readable: is not a JPEG, PNG, WebP, TIFF or BMP image",
        "TEST_SIMPLE/D": "no readable image of this class outside TEST_SIMPLE",
    }
    shutil.rmtree(images)
    broken(images, "TRAIN/A", "TRAIN/B")
    result, rules, tables = judged(images, tmp_path, **lenient)
    assert rules["empty_class"].offenders == ["TRAIN/A", "TRAIN/B"]
    assert not rules["classes"].passed
    write_page(tmp_path / "index.html", result, tables, np.load(tmp_path / "images.npy"))


def test_rules_count_readable_images_alone(tmp_path):
    images = tmp_path / "images"
    fill(images, {"ALL/A": 12, "ALL/B": 4})
    broken(images, "ALL/A", "ALL/B", count=8)  # all with the same bytes, in two classes
    result, rules, _ = judged(images, tmp_path, unreadable="warning")
    assert rules["unreadable"].count == 16
    assert rules["duplicate_across"].passed and rules["duplicate_within"].passed
    assert rules["small_class"].details == ["4 images"] and rules["imbalance"].passed
    assert result.verdict == "failed"


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [
            value for name, value in attrs if name in ("href", "src", "srcset", "action", "data")
        ]


def test_the_page_needs_nothing_from_outside_and_its_links_lead_somewhere(tmp_path):
    images = tmp_path / "data/raw/images"
    fill(images, {"TRAIN/<img src=x onerror=alert(1)>": 3, "TRAIN/B": 2})
    shutil.copy(images / "TRAIN/B/0.jpeg", images / "TRAIN/B/same #1?.jpeg")
    (images / "TRAIN/B/<script>.jpeg").write_text("text")
    result, _, tables = judged(images, tmp_path)
    page = tmp_path / "reports/validation/index.html"
    page.parent.mkdir(parents=True)
    write_page(page, result, tables, np.load(tmp_path / "images.npy"))
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert not re.search(r"https?://|<script|<link|url\(", text)
    files = {link for link in links.found if not link.startswith("data:")}
    for link in files - {"result.json"}:
        assert (page.parent / unquote(link)).exists(), link
    assert any("same%20%231%3F.jpeg" in link for link in files)
    assert text.index("Failed") < text.index("<h2>Rules")
    assert text.count("<img") >= 8


def configure(folder, change=None):
    """Give `folder` params.yaml and the sample's profile."""
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "profiles").mkdir(exist_ok=True)
    text = (ROOT / "profiles/sample.yaml").read_text()
    text = re.sub(r"images: \{size: \d+\}", "images: {size: 48}", text)
    (folder / "profiles/sample.yaml").write_text(change(text) if change else text)


def test_stage_with_warnings_writes_everything(tmp_path, monkeypatch, capfd):
    images = tmp_path / "data/raw/images"
    fill(images, {"TRAIN/A": 10, "TRAIN/B": 10, "TEST/A": 10, "TEST/B": 10})
    shutil.copy(images / "TRAIN/A/1.jpeg", images / "TRAIN/A/copy.jpeg")
    configure(tmp_path, change=lambda text: text.replace("imbalance: warning", "imbalance: off"))
    monkeypatch.chdir(tmp_path)
    assert validate.main() == 0
    printed = capfd.readouterr().out
    assert "duplicate_within: 2 found: TRAIN/A/1.jpeg" in printed
    assert "turned off: imbalance" in printed
    rows = pd.read_parquet(tmp_path / "data/inventory.parquet")
    assert (
        rows["path"].tolist() == sorted(rows["path"])
        and len(rows) == 41
        and list(rows) == inventory.SCHEMA.names
    )
    assert np.load(tmp_path / "data/images.npy", mmap_mode="r").shape == (41, 48, 48, 3)
    result = json.loads((tmp_path / "reports/validation/result.json").read_text())
    assert result["verdict"] == "warnings"
    assert {
        "rule",
        "severity",
        "description",
        "expected",
        "found",
        "passed",
        "count",
        "offenders",
    } <= set(result["rules"][0])
    assert (
        "Turned off in the profile: imbalance"
        in (tmp_path / "reports/validation/index.html").read_text()
    )


@pytest.mark.slow
def test_stage_stops_at_many_defects_and_names_each(tmp_path):
    images = tmp_path / "data/raw/images"
    fill(images, {"TRAIN/A": 10, "TRAIN/B": 10, "TEST/A": 10, "TEST/B": 4})
    whole = (images / "TRAIN/A/0.jpeg").read_bytes()
    for number in range(7):
        (images / f"TRAIN/A/cut{number}.jpeg").write_bytes(whole[: 900 + number])
    (images / "TRAIN/B/text.jpeg").write_text("text")
    save(images, "TRAIN/A/cmyk.jpeg", picture(70).convert("CMYK"))
    save(
        images,
        "TRAIN/A/deep.png",
        Image.fromarray(np.arange(160 * 120, dtype=np.uint16).reshape(120, 160)),
    )
    save(images, "TRAIN/B/large.jpeg", picture(71, (200, 120)))
    shutil.copy(images / "TRAIN/A/2.jpeg", images / "TEST/B/leak.jpeg")
    (images / "TRAIN/C").mkdir()
    configure(tmp_path)
    done = python("tasks.validate", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = {line.strip().split(":")[0]: line for line in done.stderr.splitlines()}
    assert (
        "8 found: TRAIN/A/cut0.jpeg" in lines["unreadable"] and "and 3 more" in lines["unreadable"]
    )
    assert (
        "TRAIN/A/cmyk.jpeg (CMYK)" in lines["mode"] and "TRAIN/A/deep.png (I;16)" in lines["mode"]
    )
    assert "TRAIN/B/large.jpeg (200x120)" in lines["size"]
    assert "TEST/B/leak.jpeg (same bytes as TRAIN/A/2.jpeg)" in lines["duplicate_across"]
    assert "TEST/B (5 images)" in lines["small_class"] and "TRAIN/C" in lines["empty_class"]
    assert all(
        "Fix: " in lines[rule]
        for rule in ("unreadable", "mode", "size", "duplicate_across", "small_class", "empty_class")
    )
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["raw"]
    assert sorted(path.name for path in (tmp_path / "reports/validation").iterdir()) == [
        "index.html",
        "result.json",
        "rules.csv",
    ]
    rules = pd.read_csv(tmp_path / "reports/validation/rules.csv")
    assert list(rules.columns[:2]) == ["verdict", "rule"]
    assert list(rules["verdict"]) == sorted(
        rules["verdict"], key=["failed", "warning", "passed", "off"].index
    )
    assert "TRAIN/A/cmyk.jpeg (CMYK)" in rules.set_index("rule").loc["mode", "found"]
    assert "TRAIN/B/text.jpeg" in (tmp_path / "reports/validation/index.html").read_text()


def test_stage_without_any_image(tmp_path, monkeypatch, capfd):
    (tmp_path / "data/raw/images/TRAIN/A").mkdir(parents=True)
    configure(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert validate.main() == 1
    assert "contains no images" in capfd.readouterr().err
