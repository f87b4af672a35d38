"""Stage download: zips that are dangerous or damaged, and the real one."""

import gzip
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, python
from tests.tasks.download.conftest import make_zip, pictures, refused, use

REAL_ZIP = ROOT.parent / "shared" / "data" / "blood-cells.zip"


def entry(name, mode=stat.S_IFREG | 0o644, content=b"x", **fields):
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    for key, value in fields.items():
        setattr(made, key, value)
    return made, content


def patched(field, value):
    """Return a damage: overwrite a field of the first entry in the table of contents."""

    def damage(data):
        place = data.index(b"PK\x01\x02") + field
        return data[:place] + value + data[place + len(value) :]

    return damage


BAD_ENTRIES = {
    "up": (entry("A/../../../evil.png"), "points outside"),
    "absolute": (entry("/etc/evil.png"), "points outside"),
    "drive": (entry("C:/evil.png"), "points outside"),
    "backslash": (entry("A\\evil.png"), "backslash"),
    "control character": (entry("A/ev\x1bil.png"), "control character"),
    "NUL": (entry("A/ev\x00il.png"), "control character"),
    "doubled slash": (entry("A//evil.png"), "empty or over-long part"),
    "long name": (entry(f"A/{'n' * 300}.png"), "empty or over-long part"),
    "link": (entry("A/evil.png", stat.S_IFLNK | 0o777, b"/etc/passwd"), "is a link"),
    "device": (entry("A/evil.png", stat.S_IFCHR | 0o666), "is a link or another special file"),
    "twice": (entry("A/A-0.jpeg"), "occurs twice"),
    "twice, other case": (entry("a/A-0.JPEG"), "occurs twice"),
}


@pytest.mark.parametrize("bad", BAD_ENTRIES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_dangerous_entries(stage, tmp_path, bad):
    (made, content), expected = BAD_ENTRIES[bad]
    path = make_zip(tmp_path / "bad.zip", pictures("A", "B"))
    with zipfile.ZipFile(path, "a") as opened:
        # ZipInfo cuts a name at NUL and the writer turns separators: write what an attacker writes.
        made.filename = {"NUL": "A/ev\x00il.png", "backslash": "A\\evil.png"}.get(
            bad, made.filename
        )
        opened.writestr(made, content)
    refused(
        stage,
        ["bad.zip: entry", expected, "nothing was unpacked"],
        source="archive",
        path=str(path),
    )
    assert not list(tmp_path.parent.rglob("evil*"))


def test_encrypted_zip(stage, tmp_path):
    path = make_zip(tmp_path / "bad.zip", pictures("A", "B"))
    path.write_bytes(patched(8, b"\x01\x00")(path.read_bytes()))
    refused(stage, "is encrypted", source="archive", path=str(path))


def test_zip_bomb(stage, tmp_path):
    path = make_zip(tmp_path / "bomb.zip", pictures("A", "B") | {"A/zeros.png": bytes(30_000_000)})
    assert path.stat().st_size < 100_000
    refused(stage, ["30 MB", "zip bomb"], source="archive", path=str(path))


def test_zip_that_announces_a_giant(stage, tmp_path):
    path = make_zip(tmp_path / "giant.zip", pictures("A", "B"))
    path.write_bytes(patched(24, struct.pack("<L", 4_000_000_000))(path.read_bytes()))
    refused(stage, "unpacks to 4.0 GB, the limit is 1.0 GB", source="archive", path=str(path))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda data: data[: len(data) // 2], "is truncated"),
        (lambda data: b"", "is empty"),
        (lambda data: b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
        (lambda data: b"Rar!\x1a\x07\x01", "is not a zip but a RAR archive"),
        (lambda data: b"7z\xbc\xaf\x27\x1c", "is not a zip but a 7z archive"),
        (lambda data: b"A/1.png".ljust(257, b"\0") + b"ustar", "is not a zip but a TAR archive"),
        (lambda data: gzip.compress(data), "is not a zip but a gzip file"),
        (lambda data: b"GIF89a", "is not a zip but a GIF image"),
        (lambda data: b"text", "is not a zip but something else (it begins with b'text')"),
        (lambda data: data[:100] + bytes([data[100] ^ 255]) + data[101:], "is damaged"),
        (patched(10, b"\x09\x00"), "pack the images again"),
    ],
    ids=[
        "truncated",
        "empty",
        "html",
        "rar",
        "7z",
        "tar",
        "gzip",
        "gif",
        "text",
        "CRC",
        "unknown method",
    ],
)
def test_damaged_zips(stage, tmp_path, damage, expected):
    path = make_zip(tmp_path / "bad.zip", pictures("A", "B"))
    path.write_bytes(damage(path.read_bytes()))
    refused(stage, ["bad.zip", expected], source="archive", path=str(path))


def test_truncated_zip_from_a_process(workspace, tmp_path):
    path = make_zip(tmp_path / "cut.zip", pictures("A", "B"))
    path.write_bytes(path.read_bytes()[:-40])
    use(workspace, source="archive", path=str(path))
    result = python("tasks.download", cwd=workspace)
    assert result.returncode == 1 and not (workspace / "data" / "raw").exists()
    assert (
        result.stderr
        == f"error: {path}: is truncated ({path.stat().st_size} bytes, the table of contents at its"
        " end is missing); download it again\n"
    )


@pytest.mark.skipif(not REAL_ZIP.exists(), reason="the real images are not here")
def test_the_real_zip_is_understood():
    """By its table of contents only: unpacking takes seconds."""
    from hemotune.archive import open_zip
    from hemotune.plan import plan

    with open_zip(REAL_ZIP) as opened:
        real = plan("real", [e.filename for e in opened.infolist() if not e.is_dir()])
    assert (len(real.targets), real.ignored) == (12_881, {".xml": 343, ".csv": 2})
    assert len({Path(target).parent for target in real.targets.values()}) == 13
