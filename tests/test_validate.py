"""Validate: the pass over the images, the rules, the page, and the stage as a user runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks import inventory, settings
from tasks.duplicates import nearly_same, same_bytes
from tasks.errors import StudyError
from tasks.expectations import judge, rules_for, tables_of
from tasks.validate import common_size
from tasks.validation_page import write_page

ROOT = Path(__file__).resolve().parents[1]


def picture(seed, size=(160, 120)):
    """A picture with detail at every scale, as photographs have."""
    random = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells in (4, 8, 16, 32, 64):
        layer = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        total += np.asarray(layer, dtype=float) / 5
    return Image.fromarray(total.astype(np.uint8))


def save(folder, path, image, **options):
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, **options)
    return target


def fill(folder, counts, start=0):
    """Save `counts` {SPLIT/CLASS: number} of different pictures."""
    for place, count in counts.items():
        for number in range(count):
            save(folder, f"{place}/{number}.jpeg", picture(start), quality=90)
            start += 1


def take(folder, target, size=48, processes=2):
    paths, folders = inventory.list_images(folder)
    return inventory.take_inventory(folder, paths, size, target, processes), folders


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder with every odd file there is, its inventory by path and its pixels."""
    top = tmp_path_factory.mktemp("odd")
    folder = top / "images"
    whole = save(folder, "TRAIN/A/whole.jpeg", picture(1), quality=90)
    data = whole.read_bytes()
    (folder / "TRAIN/A/cut.jpeg").write_bytes(data[: len(data) * 2 // 3])
    (folder / "TRAIN/A/text.jpeg").write_text("this is text")
    (folder / "TRAIN/A/empty.jpeg").touch()
    (folder / "TRAIN/A/gif.jpeg").write_bytes(b"GIF89a" + bytes(100))
    save(folder, "TRAIN/A/cmyk.jpeg", picture(2).convert("CMYK"))
    save(folder, "TRAIN/A/grey.jpeg", picture(3).convert("L"))
    save(folder, "TRAIN/A/palette.png", picture(4).convert("P"))
    save(folder, "TRAIN/A/deep.png", Image.fromarray(np.full((120, 160), 200 << 8, np.uint16)))
    save(folder, "TRAIN/A/still.webp", picture(5))
    save(folder, "TRAIN/A/moving.webp", picture(5), save_all=True, append_images=[picture(6)])
    save(folder, "TRAIN/A/one.tiff", picture(7))
    save(folder, "TRAIN/A/pages.tiff", picture(7), save_all=True, append_images=[picture(8)])
    save(folder, "TRAIN/A/plain.bmp", picture(9))
    turned = Image.Exif()
    turned[inventory.ORIENTATION] = 6
    save(folder, "TRAIN/A/turned.jpeg", picture(1).transpose(Image.Transpose.ROTATE_90), exif=turned, quality=90)
    save(folder, "TRAIN/A/bomb.png", Image.new("1", (20000, 20000)))
    rows, _ = take(folder, top / "images.npy", size=32)
    assert rows["path"].tolist() == sorted(rows["path"])
    return rows.assign(name=rows["path"].str.rsplit("/", n=1).str[-1]).set_index("name"), np.load(top / "images.npy")


def test_damaged_files_get_a_row_and_no_crash(odd):
    rows, pixels = odd
    expected = {
        "cut.jpeg": "truncated",
        "text.jpeg": "is no JPEG",
        "gif.jpeg": "is no JPEG",
        "empty.jpeg": "is empty",
        "moving.webp": "holds 2 frames",
        "pages.tiff": "holds 2 frames",
        "bomb.png": "decompression bomb",
    }
    assert set(rows.index[~rows["readable"]]) == set(expected)
    for name, error in expected.items():
        assert error in rows.at[name, "error"]
        assert "0x" not in rows.at[name, "error"]  # an address would differ from run to run
        assert not pixels[rows.index.get_loc(name)].any()
    assert rows.loc[rows["readable"], "error"].isna().all()


def test_modes_and_formats_are_told_as_stored(odd):
    rows, pixels = odd
    modes = {"cmyk.jpeg": "CMYK", "grey.jpeg": "L", "deep.png": "I;16", "palette.png": "P", "plain.bmp": "RGB", "still.webp": "RGB"}
    assert rows["mode"].loc[list(modes)].to_dict() == modes
    assert rows.at["still.webp", "format"] == "WEBP" and rows.at["one.tiff", "format"] == "TIFF"
    assert (pixels[rows.index.get_loc("deep.png")] == 200).all()  # the upper eight bits, not clipped


def test_exif_orientation_is_applied(odd):
    rows, pixels = odd
    assert (rows.at["turned.jpeg", "width"], rows.at["turned.jpeg", "height"]) == (160, 120)
    turned, whole = (pixels[rows.index.get_loc(name)].astype(int) for name in ("turned.jpeg", "whole.jpeg"))
    assert np.abs(turned - whole).mean() < 3


def test_pixels_are_those_of_a_plain_decode(tmp_path):
    fill(tmp_path / "images", {"TRAIN/A": 70})  # more than a chunk
    rows, _ = take(tmp_path / "images", tmp_path / "images.npy", size=32)
    pixels = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert pixels.shape == (70, 32, 32, 3) and pixels.dtype == np.uint8
    for row in (0, 65, 69):
        plain = Image.open(tmp_path / "images" / rows.at[row, "path"]).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(pixels[row].astype(int) - np.asarray(plain)).mean() < 2
    again, _ = take(tmp_path / "images", tmp_path / "again.npy", size=32, processes=1)
    pd.testing.assert_frame_equal(rows, again)
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "images.npy").read_bytes()


def test_hashes_are_those_of_imagehash():
    grey = np.stack([np.asarray(picture(seed, (64, 64)).convert("L")) for seed in range(8)])
    expected = [str(imagehash.phash(Image.fromarray(image), inventory.HASH_SIDE)) for image in grey]
    assert inventory.perceptual_hashes(grey) == expected


def test_files_at_another_depth_are_refused(tmp_path):
    (tmp_path / "TRAIN").mkdir()
    (tmp_path / "TRAIN/stray.jpeg").touch()
    with pytest.raises(StudyError, match="stray.jpeg.*SPLIT/CLASS"):
        inventory.list_images(tmp_path)
    with pytest.raises(StudyError, match="dvc repro download"):
        inventory.list_images(tmp_path / "nothing")


def frame(rows):
    return pd.DataFrame(rows, columns=["path", "split", "class", "sha256", "phash"])


def test_same_bytes_name_each_other():
    places = [("a", "T", "A"), ("b", "T", "A"), ("c", "T", "B"), ("d", "T", "A"), ("e", "T", "A")]
    across, within = same_bytes(frame([(*place, content, "") for place, content in zip(places, ["1", "1", "1", "2", None], strict=True)]))
    assert across == ["c", "c", "a", None, None]
    assert within == ["b", "a", None, None, None]


def test_near_duplicates_equal_a_search_of_all_pairs():
    random = np.random.default_rng(5)
    bits = random.integers(0, 2, (300, 256), dtype=np.uint8)
    for row in range(150, 300):  # near copies of the first half, 0 to 14 bits away
        bits[row] = bits[row - 150]
        bits[row, random.choice(256, row % 15, replace=False)] ^= 1
    rows = [(f"{n:03}", "TRAIN" if n % 2 else "TEST", "A", str(n), np.packbits(row).tobytes().hex()) for n, row in enumerate(bits)]
    rows.append(("unreadable", "TRAIN", "A", "x", None))
    across, within = nearly_same(frame(rows), 10)
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    np.fill_diagonal(distance, 256)
    split = np.arange(300) % 2
    for found, other in ((across, split[:, None] != split), (within, split[:, None] == split)):
        near = np.where(other, distance, 256)
        expected = [f"{line.argmin():03}" if line.min() <= 10 else None for line in near] + [None]
        assert found == expected


def test_thousands_of_blank_images_are_compared_in_seconds():
    rows = frame([(f"{n:04}", "TRAIN" if n < 2500 else "TEST", "A", str(n), "80" + "0" * 62) for n in range(3000)])
    across, within = nearly_same(rows, 10)
    assert any(across) and all(within)


def test_a_re_encoded_copy_is_a_near_duplicate(tmp_path):
    fill(tmp_path / "images", {"TRAIN/A": 3})
    save(tmp_path / "images", "TEST/A/again.png", Image.open(tmp_path / "images/TRAIN/A/1.jpeg").resize((320, 240)))
    rows, _ = take(tmp_path / "images", tmp_path / "images.npy")
    across, _ = nearly_same(rows, 10)
    assert dict(zip(rows["path"], across, strict=True))["TRAIN/A/1.jpeg"] == "TEST/A/again.png"
    assert sum(path is not None for path in across) == 2


def judged(folder, tmp_path, **changed):
    rows, folders = take(folder, tmp_path / "images.npy")
    tables = tables_of(rows, folders, 10)
    result = judge(tables, rules_for(settings.Validation(**changed), common_size(tables["decoded"])))
    return result, {rule["rule"]: rule for rule in result["rules"]}, tables


def test_good_images_pass_and_test_simple_may_be_small(tmp_path):
    fill(tmp_path / "images", {"TRAIN/A": 10, "TRAIN/B": 10, "TEST/A": 10, "TEST/B": 10, "TEST_SIMPLE/A": 1})
    result, rules, _ = judged(tmp_path / "images", tmp_path)
    assert result["verdict"] == "passed"
    assert all(rule["passed"] and rule["count"] == 0 for rule in rules.values())
    assert result["great_expectations"]["decoded"]["success_percent"] == 100
    json.dumps(result, allow_nan=False)


def test_one_class_empty_classes_and_imbalance(tmp_path):
    fill(tmp_path / "images", {"ALL/A": 12})
    (tmp_path / "images/ALL").mkdir(exist_ok=True)
    _, rules, _ = judged(tmp_path / "images", tmp_path)
    assert not rules["classes"]["passed"] and rules["classes"]["severity"] == "error"
    (tmp_path / "images/ALL/B").mkdir()
    fill(tmp_path / "images", {"ALL/C": 3}, start=100)
    result, rules, _ = judged(tmp_path / "images", tmp_path, imbalance="error", small_class="off")
    assert result["verdict"] == "failed"
    assert rules["classes"]["passed"]
    assert rules["empty_class"]["offenders"] == ["ALL/B"]
    assert rules["imbalance"]["offenders"] == ["ALL/C"] and rules["imbalance"]["details"] == ["1 to 4.0"]
    assert rules["small_class"]["found"].startswith("not judged") and rules["small_class"]["passed"]


def test_different_sizes_and_other_modes_where_the_profile_allows_them(tmp_path):
    fill(tmp_path / "images", {"ALL/A": 10, "ALL/B": 10})
    save(tmp_path / "images", "ALL/A/large.png", picture(50, (300, 200)))
    save(tmp_path / "images", "ALL/B/grey.png", picture(51).convert("L"))
    result, rules, _ = judged(tmp_path / "images", tmp_path)
    assert result["verdict"] == "failed"
    assert rules["size"]["offenders"] == ["ALL/A/large.png"] and rules["size"]["details"] == ["300x200"]
    assert rules["mode"]["offenders"] == ["ALL/B/grey.png"]
    result, _, _ = judged(tmp_path / "images", tmp_path, size="off", allowed_modes=["RGB", "L"])
    assert result["verdict"] == "passed"


def test_a_missing_value_does_not_slip_through(tmp_path):
    fill(tmp_path / "images", {"ALL/A": 10, "ALL/B": 10})
    _, _, tables = judged(tmp_path / "images", tmp_path)
    tables["decoded"].loc[3, "width"] = None
    result = judge(tables, rules_for(settings.Validation(), "160x120"))
    broken = [rule for rule in result["rules"] if not rule["passed"]]
    assert [rule["rule"] for rule in broken] == ["complete_decoded"] and broken[0]["offenders"] == [tables["decoded"].at[3, "path"]]


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("href", "src", "srcset", "action", "data")]


def test_the_page_needs_nothing_from_outside_and_its_links_lead_somewhere(tmp_path):
    images = tmp_path / "data/raw/images"
    fill(images, {"TRAIN/A&<b>": 3, "TRAIN/B": 2})
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


def stage(folder, *, change=None):
    """Run the stage in `folder`, which gets params.yaml and the sample's profile."""
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "profiles").mkdir(exist_ok=True)
    text = (ROOT / "profiles/sample.yaml").read_text()
    text = re.sub(r"images: \{size: \d+\}", "images: {size: 48}", text)
    (folder / "profiles/sample.yaml").write_text(change(text) if change else text)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "tasks.validate"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_stage_with_warnings_writes_everything(tmp_path):
    images = tmp_path / "data/raw/images"
    fill(images, {"TRAIN/A": 10, "TRAIN/B": 10, "TEST/A": 10, "TEST/B": 10})
    shutil.copy(images / "TRAIN/A/1.jpeg", images / "TRAIN/A/copy.jpeg")
    done = stage(tmp_path, change=lambda text: text.replace("imbalance: warning", "imbalance: off"))
    assert done.returncode == 0, done.stderr
    assert "duplicate_within: 2 found: TRAIN/A/1.jpeg" in done.stdout and "turned off: imbalance" in done.stdout
    rows = pd.read_parquet(tmp_path / "data/inventory.parquet")
    assert rows["path"].tolist() == sorted(rows["path"]) and len(rows) == 41 and list(rows) == inventory.SCHEMA.names
    assert np.load(tmp_path / "data/images.npy", mmap_mode="r").shape == (41, 48, 48, 3)
    result = json.loads((tmp_path / "reports/validation/result.json").read_text())
    assert result["verdict"] == "warnings"
    assert {"rule", "severity", "description", "expected", "found", "passed", "count", "offenders"} <= set(result["rules"][0])
    assert "Turned off in the profile: imbalance" in (tmp_path / "reports/validation/index.html").read_text()


def test_stage_stops_at_many_defects_and_names_each(tmp_path):
    images = tmp_path / "data/raw/images"
    fill(images, {"TRAIN/A": 10, "TRAIN/B": 10, "TEST/A": 10, "TEST/B": 4})
    whole = (images / "TRAIN/A/0.jpeg").read_bytes()
    for number in range(7):
        (images / f"TRAIN/A/cut{number}.jpeg").write_bytes(whole[: 900 + number])
    (images / "TRAIN/B/text.jpeg").write_text("text")
    save(images, "TRAIN/A/cmyk.jpeg", picture(70).convert("CMYK"))
    save(images, "TRAIN/A/deep.png", Image.fromarray(np.arange(160 * 120, dtype=np.uint16).reshape(120, 160)))
    save(images, "TRAIN/B/large.jpeg", picture(71, (200, 120)))
    shutil.copy(images / "TRAIN/A/2.jpeg", images / "TEST/B/leak.jpeg")
    (images / "TRAIN/C").mkdir()
    done = stage(tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = {line.strip().split(":")[0]: line for line in done.stderr.splitlines()}
    assert "8 found: TRAIN/A/cut0.jpeg" in lines["unreadable"] and "and 3 more" in lines["unreadable"]
    assert "TRAIN/A/cmyk.jpeg (CMYK)" in lines["mode"] and "TRAIN/A/deep.png (I;16)" in lines["mode"]
    assert "TRAIN/B/large.jpeg (200x120)" in lines["size"]
    assert "TEST/B/leak.jpeg (same bytes as TRAIN/A/2.jpeg)" in lines["duplicate_across"]
    assert "TEST/B (5 images)" in lines["small_class"] and "TRAIN/C" in lines["empty_class"]
    assert all("Fix: " in lines[rule] for rule in ("unreadable", "mode", "size", "duplicate_across", "small_class", "empty_class"))
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["raw"]
    assert sorted(path.name for path in (tmp_path / "reports/validation").iterdir()) == ["index.html", "result.json"]
    assert "TRAIN/B/text.jpeg" in (tmp_path / "reports/validation/index.html").read_text()


def test_stage_without_any_image(tmp_path):
    (tmp_path / "data/raw/images/TRAIN/A").mkdir(parents=True)
    done = stage(tmp_path)
    assert done.returncode == 1 and "holds no image" in done.stderr and "Traceback" not in done.stderr
