"""Stage download: which sources are understood, which are refused, and that data/raw/ appears whole
or not at all.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from flows.dag import Meta
from flows.source import has_changed_here
from hemotune.errors import StudyError
from hemotune.settings.dataset import Dataset
from tasks.download import __main__ as download
from tasks.download import sources
from tests.conftest import ENVIRONMENT, ROOT, python, run
from tests.tasks.download.conftest import (
    files_in,
    make_folder,
    make_zip,
    picture,
    pictures,
    refused,
    use,
)


def test_kaggles_layout_from_a_process(workspace, tmp_path):
    classes = pictures(
        *(
            f"dataset2-master/dataset2-master/images/{s}/{c}"
            for s in ("TRAIN", "TEST", "TEST_SIMPLE")
            for c in "AB"
        )
    )
    photographs = pictures("dataset-master/dataset-master/JPEGImages")
    extra = {
        "dataset-master/dataset-master/labels.csv": b"",
        "dataset-master/dataset-master/Annotations/1.xml": b"<a/>",
    }
    path = make_zip(tmp_path / "cells.zip", classes | photographs | extra)
    use(workspace, source="archive", path=str(path))
    result = python("tasks.download", cwd=workspace)
    assert result.returncode == 0, result.stderr
    raw = workspace / "data/raw"
    assert len(files_in(raw)) == 18 + 3 + 1
    assert (raw / "images/TEST_SIMPLE/B/B-2.jpeg").read_bytes() == picture(
        "dataset2-master/dataset2-master/images/TEST_SIMPLE/B2"
    )
    source = json.loads((raw / "source.json").read_text())
    assert (source["source"], source["reference"], source["version"]) == (
        "archive",
        str(path),
        None,
    )
    assert (source["images"], source["photographs"], source["ignored"]) == (18, 3, 2)
    assert source["ignored_kinds"] == {".csv": 1, ".xml": 1}
    lines = [
        f"{hashlib.sha256((raw / name).read_bytes()).hexdigest()}  {name}\n"
        for name in files_in(raw)
        if name != "source.json"
    ]
    assert source["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert "[100%] unpack 21/21" in result.stdout and "18 images and 3 photographs" in result.stdout


FORMATS = (".JPG", ".jpeg", ".Png", ".webp", ".tif", ".TIFF", ".bmp")
LAYOUTS = {
    "plain": (pictures("A", "B"), "images/ALL/A/A-0.jpeg"),
    "plain, wrapped": (pictures("x/y/A", "x/y/B"), "images/ALL/B/B-1.jpeg"),
    "splits in lower case": (
        pictures("set/train/A", "set/train/B", "set/test/A", "set/test/B"),
        "images/TEST/B/B-1.jpeg",
    ),
    "each split wrapped in itself": (
        pictures("train/train/A", "train/train/B", "test/test/A", "test/test/B"),
        "images/TRAIN/B/B-1.jpeg",
    ),
    "other names of splits": (
        pictures("Training/A", "Training/B", "Testing/A"),
        "images/TEST/A/A-1.jpeg",
    ),
    "validation": (
        pictures("train/A", "val/A", "train/B", "val/B"),
        "images/VALIDATION/A/A-0.jpeg",
    ),
    "a class named like its split": (
        pictures("train/test", "train/cat", "test/test", "test/cat"),
        "images/TEST/test/test-0.jpeg",
    ),
    "groups below classes": (
        pictures("x/A/p1", "x/A/p2", "x/B/p3"),
        "images/ALL/A/p2-p2-0.jpeg",
    ),
    "groups below classes of splits": (
        pictures("train/A/p1", "train/B/p2", "test/A/p3", "test/B/p4"),
        "images/TEST/B/p4-p4-1.jpeg",
    ),
    "a class named like a split": (
        pictures("car", "train", "bus"),
        "images/ALL/train/train-0.jpeg",
    ),
    "a class named photographs": (
        pictures("drawings", "photographs"),
        "images/ALL/photographs/photographs-0.jpeg",
    ),
    "its own layout": (
        pictures("images/ALL/A", "images/ALL/B", "photographs"),
        "photographs/photographs-2.jpeg",
    ),
    "every format": ({f"{c}/1{s}": b"x" for c in "AB" for s in FORMATS}, "images/ALL/A/1.Png"),
}


@pytest.mark.parametrize("source", ["archive", "folder"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(stage, tmp_path, layout, source):
    files, expected = LAYOUTS[layout]
    path = tmp_path / "source"
    (make_zip if source == "archive" else make_folder)(path, files)
    status, output, errors = stage(source=source, path=str(path))
    assert (status, errors) == (0, "")
    found = files_in(stage.raw)
    has_groups = "groups below" in layout
    assert len(found) == len(files) + 1 + has_groups and expected in found
    kept = set(found) - {"source.json", "groups.csv"}
    assert {(stage.raw / name).read_bytes() for name in kept} == set(files.values())
    if has_groups:
        groups = pd.read_csv(stage.raw / "groups.csv").set_index("path")["group"]
        assert {f"images/{path}" for path in groups.index} == kept
        assert groups[expected.removeprefix("images/")] == expected.split("/")[-1][:2]


NOT_UNDERSTOOD = {
    "images at the top": {"1.png": b"x", "2.png": b"x"},
    "images straight in splits": pictures("train", "test"),
    "an unlabelled test set": pictures("train/A", "train/B", "test"),
    "class folders at two places": pictures("old/A", "old/B", "new/A", "new/B"),
    "a folder in a class folder": pictures("train/A", "train/B", "train/B/more"),
    "photographs alone": pictures("JPEGImages"),
    "splits beside others": pictures("train/A", "train/B", "val/C", "more/D"),
}

INTEL = pictures("seg_train/seg_train/A", "seg_train/seg_train/B", "seg_test/seg_test/A", "pred")
PATIENTS = pictures("p1/A", "p1/B", "p2/A")
TOLD = {
    "splits of any name, and images without a class": (
        INTEL,
        {"splits": {"seg_train": "train", "seg_test": "test"}, "unlabelled": ["pred"]},
        {"TRAIN/A": 3, "TRAIN/B": 3, "TEST/A": 3},
        None,
    ),
    "a validation folder as the test": (
        pictures("train/A", "val/A"),
        {"splits": {"train": "train", "val": "test"}},
        {"TRAIN/A": 3, "TEST/A": 3},
        None,
    ),
    "some classes": (
        pictures("train", "B", "C", "C/more"),
        {"classes": ["train", "B"]},
        {"ALL/train": 3, "ALL/B": 3},
        None,
    ),
    "groups of one name in two classes": (
        pictures("old/1", "old/2", "new/1"),
        {"classes": ["old", "new"]},
        {"ALL/old": 6, "ALL/new": 3},
        {"1", "2"},
    ),
    "folders below classes by pattern": (
        pictures("old/1", "old/2", "new/1"),
        {"groups": {"pattern": "CLASS/{group}/*"}},
        {"ALL/old": 6, "ALL/new": 3},
        {"1", "2"},
    ),
    "folders above classes by pattern": (
        PATIENTS,
        {"groups": {"pattern": "{group}/CLASS/*"}},
        {"ALL/A": 6, "ALL/B": 3},
        {"p1", "p2"},
    ),
    "file names by pattern": (
        {f"{c}/{p}_{n}_0.png": b"x" for c in "AB" for p in ("p1", "p2") for n in range(3)},
        {"groups": {"pattern": "{group}_*.png"}},
        {"ALL/A": 6, "ALL/B": 6},
        {"p1", "p2"},
    ),
    "a table": (
        pictures("A", "B")
        | {
            "groups.csv": b"path,group,age\n"
            + b"".join(f"{c}/{c}-{n}.jpeg,{n},9\n".encode() for c in "AB" for n in range(3))
        },
        {"groups": {"file": "source/groups.csv"}},
        {"ALL/A": 3, "ALL/B": 3},
        {"0", "1", "2"},
    ),
}


@pytest.mark.parametrize("layout", TOLD)
def test_what_the_profile_says_of_folders_and_groups(stage, tmp_path, layout):
    files, told, counts, groups = TOLD[layout]
    path = make_folder(tmp_path / "source", files)
    status, output, errors = stage(source="folder", path=str(path), **told)
    assert (status, errors) == (0, "")
    images = [name.split("/")[1:] for name in files_in(stage.raw) if name.startswith("images/")]
    assert Counter("/".join(image[:2]) for image in images) == counts
    table = stage.raw / "groups.csv"
    assert table.exists() == bool(groups)
    if groups:
        rows = pd.read_csv(table, dtype=str)
        assert set(rows["group"]) == groups and len(rows) == len(images)
        assert f"{len(groups)} groups are given" in output


def test_a_changed_table_of_groups_is_a_changed_source(stage, tmp_path):
    table = tmp_path / "groups.csv"
    lines = [f"{c}/{c}-{n}.jpeg,{n}" for c in "AB" for n in range(3)]
    table.write_text("\n".join(["path,group", *lines]))
    path = make_folder(tmp_path / "source", pictures("A", "B"))
    assert stage(source="folder", path=str(path), groups={"file": str(table)})[0] == 0
    meta = Meta(source="python -m tasks.download --source", state="data/source_state.json")
    assert not has_changed_here("download", meta)
    table.write_text("\n".join(["path,group", *lines, ""]))
    assert has_changed_here("download", meta)


BAD_GROUPS = {
    "an image without a group": (
        {"pattern": "{group}-0.jpeg"},
        "A/A-1.jpeg has no group (nor have 3 more); dataset.groups.pattern is {group}-0.jpeg",
    ),
    "a pattern that matches nothing": ({"pattern": "{group}_*.png"}, "matches no image; a path is"),
    "a pattern without a group": ({"pattern": "*_*.png"}, "a pattern contains {group} once"),
    "two ways": ({"pattern": "{group}_*", "file": "x.csv"}, "name a file or a pattern, not both"),
    "no table": ({"file": "no.csv"}, "no.csv: cannot be read (No such file or directory)"),
    "another table": (b"name,group\n", "has no column path; its first line must be path,group"),
    "no image": (b"path,group\nA/9.jpeg,1\n", "line 2: {path} has no image 'A/9.jpeg'; paths are"),
    "no group": (b"path,group\nA/A-0.jpeg,\n", "line 2: A/A-0.jpeg has no group; write one"),
    "two groups": (b"path,group\nA/A-0.jpeg,1\nA/A-0.jpeg,2\n", "has two groups, 1 and 2; keep"),
    "too few": (b"path,group\nA/A-0.jpeg,1\n", "A/A-1.jpeg has no group (nor have 4 more); add"),
    "a picture": (picture("png"), "is not a CSV table in UTF-8"),
}


@pytest.mark.parametrize("case", BAD_GROUPS)
def test_groups_that_cannot_be_are_refused(stage, tmp_path, case):
    groups, expected = BAD_GROUPS[case]
    path = make_folder(tmp_path / "source", pictures("A", "B"))
    if isinstance(groups, bytes):
        (tmp_path / "groups.csv").write_bytes(groups)
        groups = {"file": "groups.csv"}
    expected = expected.replace("{path}", str(path))
    refused(stage, expected, source="folder", path=str(path), groups=groups)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"splits": {"seg_trian": "train"}}, "has no folder seg_trian, which dataset.splits names"),
        ({"unlabelled": ["prd"]}, "has no folder prd, which dataset.unlabelled names"),
        ({"classes": ["A", "Z"]}, "has no folder Z, which dataset.classes names"),
    ],
)
def test_folders_that_are_not_there_are_refused(stage, tmp_path, told, expected):
    path = make_folder(tmp_path / "source", INTEL)
    refused(stage, expected, source="folder", path=str(path), **told)


@pytest.mark.parametrize("layout", NOT_UNDERSTOOD)
def test_other_layouts_are_refused_with_what_was_found(stage, tmp_path, layout):
    files = NOT_UNDERSTOOD[layout]
    folder = list(files)[-1].rpartition("/")[0]
    found = f"in {folder}/" if folder else "in its top folder"
    refused(
        stage,
        ["source.zip: its layout", found, "SPLIT/CLASS/images"],
        source="archive",
        path=str(make_zip(tmp_path / "source.zip", files)),
    )


def test_what_is_no_image_is_ignored_and_counted_but_a_text_named_jpeg_is_kept(stage, tmp_path):
    rubbish = [
        "__MACOSX/A/._1.jpeg",
        "A/Thumbs.db",
        "B/desktop.ini",
        "A/.hidden.jpeg",
        ".git/x/1.png",
        "A/notes.txt",
        "README",
    ]
    files = pictures("A", "B") | dict.fromkeys(rubbish, b"x") | {"A/text.jpeg": b"no image"}
    path = make_folder(tmp_path / "source", files)
    os.mkfifo(path / "A" / "pipe.jpeg")  # would hang who opens it
    status, output, errors = stage(source="folder", path=str(path))
    assert status == 0, errors
    assert (stage.raw / "images/ALL/A/text.jpeg").read_bytes() == b"no image"
    source = json.loads((stage.raw / "source.json").read_text())
    assert (source["images"], source["ignored"]) == (7, 8)
    kinds = {
        "__MACOSX": 1,
        "Thumbs.db": 1,
        "desktop.ini": 1,
        "hidden": 2,
        ".txt": 1,
        "without suffix": 1,
        "not a file": 1,
    }
    assert source["ignored_kinds"] == kinds


def test_include_and_exclude(stage, tmp_path):
    path = make_zip(
        tmp_path / "source.zip", pictures("v1/A", "v1/B", "v2/A", "v2/B"), folders=["v2/C"]
    )
    status, output, errors = stage(
        source="archive", path=str(path), include=["v2/*"], exclude=["*-0.jpeg", "v2/C/*"]
    )
    assert status == 0, errors
    assert files_in(stage.raw) == [f"images/ALL/{c}/{c}-{n}.jpeg" for c in "AB" for n in (1, 2)] + [
        "source.json"
    ]
    shutil.rmtree(stage.raw)
    refused(
        stage,
        "12 left out by dataset.include or exclude",
        source="archive",
        path=str(path),
        include=["v3/*"],
    )


SPLITS = pictures(*(f"set/{split}/{c}" for split in ("TRAIN", "TEST") for c in ("A", "B", "C [1]")))


@pytest.mark.parametrize("source", ["archive", "folder"])
@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        ({"include": ["*/A/*", "*/B/*"]}, {"TRAIN/A", "TRAIN/B", "TEST/A", "TEST/B"}),
        ({"include": ["*/TRAIN/*"]}, {"TRAIN/A", "TRAIN/B", "TRAIN/C [1]"}),
        ({"include": ["*/A/A-0.jpeg", "*/B/*-1.jpeg"]}, {"TRAIN/A", "TRAIN/B", "TEST/A", "TEST/B"}),
        ({"exclude": ["*/C [1]/*"]}, {"TRAIN/A", "TRAIN/B", "TEST/A", "TEST/B"}),
        ({"exclude": ["*/C [[]1]/*"]}, {"TRAIN/A", "TRAIN/B", "TEST/A", "TEST/B"}),
        (
            {"exclude": ["*/TEST/C [?]/*"]},
            {"TRAIN/A", "TRAIN/B", "TRAIN/C [1]", "TEST/A", "TEST/B"},
        ),
    ],
)
def test_a_class_that_include_leaves_out_is_not_an_empty_one(stage, tmp_path, source, chosen, kept):
    path = tmp_path / "source"
    empty = {"set/TEST/D/notes.txt": b"x"} if "include" in chosen else {}
    (make_zip if source == "archive" else make_folder)(path, SPLITS | empty)
    status, output, errors = stage(source=source, path=str(path), **chosen)
    assert status == 0, errors
    folders = {name.removeprefix("images/").rpartition("/")[0] for name in files_in(stage.raw)}
    assert folders - {""} == kept


def test_the_pattern_that_a_refusal_names_leaves_the_folder_out(stage, tmp_path):
    path = make_zip(tmp_path / "source.zip", SPLITS, folders=["set/TEST/it's [2]"])
    refused(stage, "dataset.exclude: ['*set/TEST/it''s [2]/*']", source="archive", path=str(path))
    shutil.rmtree(stage.raw)
    status, output, errors = stage(
        source="archive", path=str(path), exclude=["*set/TEST/it's [2]/*"]
    )
    assert status == 0, errors


def test_a_class_that_include_wants_must_have_images(stage, tmp_path):
    path = make_zip(tmp_path / "source.zip", SPLITS, folders=["set/TEST/D"])
    expected = "the folder set/TEST/D/ should be a class, but contains no images"
    refused(stage, expected, source="archive", path=str(path), include=["*.jpeg"])


@pytest.mark.parametrize(
    "files", [{}, {"C/notes.txt": b"x"}], ids=["nothing in it", "a text in it"]
)
@pytest.mark.parametrize("top", ["", "set/TRAIN/"], ids=["plain", "splits"])
def test_empty_class_is_refused(stage, tmp_path, top, files):
    all_files = pictures(f"{top}A", f"{top}B") | {
        f"{top}{name}": content for name, content in files.items()
    }
    path = make_zip(tmp_path / "source.zip", all_files, folders=[f"{top}C"])
    refused(
        stage,
        [f"the folder {top}C/", "contains no images", "dataset.exclude"],
        source="archive",
        path=str(path),
    )


def test_names_that_collide_are_refused(stage, tmp_path):
    path = make_folder(tmp_path / "source", pictures("A", "B") | {"A/A-0.JPEG": b"x"})
    refused(stage, "A/A-0.JPEG and A/A-0.jpeg would both become", source="folder", path=str(path))
    shutil.rmtree(stage.raw)
    refused(
        stage,
        "A and a differ in case only",
        source="folder",
        path=str(make_folder(tmp_path / "second", pictures("A", "a", "B"))),
    )
    shutil.rmtree(stage.raw)
    composed = make_zip(
        tmp_path / "third.zip", pictures("train/\u00e9", "train/B", "test/e\u0301", "test/B")
    )
    refused(
        stage,
        r"'e\u0301' and '\xe9' differ in Unicode composition only",
        source="archive",
        path=str(composed),
    )


def test_folder_is_copied_and_the_original_untouched(stage, tmp_path):
    path = make_folder(tmp_path / "source", pictures("A", "B"))
    (path / "loop").symlink_to(path)
    original = path / "A" / "A-0.jpeg"
    original.chmod(0o444)
    before = original.stat()
    assert stage(source="folder", path=str(path))[0] == 0
    copy = stage.raw / "images/ALL/A/A-0.jpeg"
    copy.write_bytes(b"changed")
    after = original.stat()
    assert original.read_bytes() == picture("A0") and (before.st_mode, before.st_mtime_ns) == (
        after.st_mode,
        after.st_mtime_ns,
    )


@pytest.mark.parametrize("path", ["data/raw", "data/raw/images", "data", "."])
def test_source_inside_the_output_is_refused(stage, path):
    (stage.raw / "images").mkdir(parents=True)
    (stage.raw / "images" / "1.png").touch()
    status, output, errors = stage(source="folder", path=path)
    assert status == 1 and "this stage replaces data/raw/" in errors
    assert (stage.raw / "images" / "1.png").exists()


def test_missing_sources(stage, tmp_path):
    refused(
        stage, ["no.zip: there is no such file", "dataset.path"], source="archive", path="no.zip"
    )
    shutil.rmtree(stage.raw)
    refused(stage, ["no: there is no such folder", "dataset.path"], source="folder", path="no")
    shutil.rmtree(stage.raw)
    refused(
        stage,
        ["cannot be read", "dataset.path"],
        source="archive",
        path=str(make_folder(tmp_path / "folder", pictures("A"))),
    )
    shutil.rmtree(stage.raw)
    (tmp_path / "cells.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    refused(
        stage,
        "cells.7z: is a 7z archive, not a folder",
        source="folder",
        path=str(tmp_path / "cells.7z"),
    )


@pytest.mark.parametrize("source", ["archive", "folder"])
def test_full_disk(workspace, tmp_path, source):
    """data/ lies on a file system of one megabyte, three are to come."""
    files = {f"{c}/{n}.png": picture(f"{c}{n}", 100_000) for c in "AB" for n in range(15)}
    path = tmp_path / "source"
    (make_zip if source == "archive" else make_folder)(path, files)
    use(workspace, source=source, path=str(path))
    (workspace / "data").mkdir()
    command = (
        'mount -t tmpfs -o size=1m none data && touch data/x || exit 77; "$0" -m tasks.download;'
        " status=$?; ls -A data; exit $status"
    )
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, sys.executable],
        cwd=workspace,
        env=ENVIRONMENT | {"PYTHONPATH": str(workspace)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode not in (0, 1):
        pytest.skip("no right to mount a small file system")
    assert result.returncode == 1 and result.stdout.splitlines()[-1] == "x"
    assert (
        "3.0 MB, but" if source == "archive" else "the disk is full while writing"
    ) in result.stderr
    assert "free some space" in result.stderr and "Traceback" not in result.stderr


def test_source_state_changes_with_the_source_and_is_kept(workspace, monkeypatch, tmp_path):
    archive = make_zip(tmp_path / "cells.zip", pictures("A", "B"))
    folder = make_folder(tmp_path / "cells", pictures("A", "B"))

    def state(**dataset):
        return sources.source_state(Dataset(**dataset))

    for dataset, change in (
        (
            {"source": "archive", "path": str(archive)},
            lambda: make_zip(archive, pictures("A", "B", "C")),
        ),
        (
            {"source": "folder", "path": str(folder)},
            lambda: (folder / "A" / "new.png").write_bytes(b"x"),
        ),
        (
            {"source": "folder", "path": str(folder)},
            lambda: (folder / "A" / "new.png").rename(folder / "B" / "new.png"),
        ),
    ):
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (1, 1))
        before = state(**dataset)
        assert state(**dataset) == before
        change()
        assert state(**dataset) != before and json.dumps(before)
    use(workspace, source="archive", path=str(archive))
    monkeypatch.chdir(workspace)
    assert download.main() == 0
    assert json.loads(Path("data/source_state.json").read_text()) == state(
        source="archive", path=str(archive)
    )
    assert state(source="sample") != state(source="sample", sample={"seed": 2})
    with pytest.raises(StudyError, match="dataset.path"):
        state(source="archive", path=str(tmp_path / "no.zip"))


def test_sample_gives_the_same_bytes_twice(stage):
    sample = {"photographs": 4, "copies": 2, "width": 48, "height": 32, "seed": 3}
    sums = []
    for _ in range(2):
        status, output, errors = stage(source="sample", sample=sample)
        assert status == 0, errors
        source = json.loads((stage.raw / "source.json").read_text())
        assert source["reference"] == "drawn" and source["version"] is None
        for kind in ("images", "photographs"):
            assert source[kind] == sum(path.is_file() for path in (stage.raw / kind).rglob("*")) > 0
        sums.append(source["sha256"])
    assert sums[0] == sums[1]


@pytest.mark.slow
def test_the_study_asks_its_source_by_the_command_in_dvc_yaml(workspace):
    """What flows/watch.py runs: without such a command it never learns of new data."""
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    commands = [
        stage["meta"]["source"] for stage in stages.values() if "source" in stage.get("meta", {})
    ]
    assert len(commands) == 1

    profile = workspace / "profiles" / "tiny.yaml"
    profile.write_text(
        profile.read_text().replace("source: sample", "source: archive\n  path: images.zip")
    )
    zip_path = workspace / "images.zip"
    zip_path.write_bytes(b"first")
    first, again = (run(["sh", "-c", commands[0]], workspace) for _ in range(2))
    assert first.returncode == 0 and first.stdout == again.stdout, first.stderr
    zip_path.write_bytes(b"another")
    changed = run(["sh", "-c", commands[0]], workspace)
    assert changed.returncode == 0 and changed.stdout != first.stdout
    zip_path.unlink()
    gone = run(["sh", "-c", commands[0]], workspace)
    assert gone.returncode == 1 and gone.stderr.startswith(
        "error: images.zip: there is no such file; correct dataset.path"
    )
    assert not (workspace / "data").exists()
