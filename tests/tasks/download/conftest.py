"""The stage download's command on made-up sources, and a machine whose Kaggle client, the real one,
speaks to a local server.
"""

import os
import random
import subprocess
import sys
import zipfile

import pytest
from ruamel.yaml import YAML

from tasks.download import __main__ as download
from tests.conftest import ENVIRONMENT, TINY_PROFILE
from tests.tasks.download.kaggle_server import HANDLE, KaggleServer

TOKEN = "KGAT_0123456789abcdef0123456789abcdef"


def picture(seed, size=300):
    """Bytes that no other seed gives. This stage never decodes an image."""
    return random.Random(seed).randbytes(size)


def pictures(*folders, count=3):
    return {
        f"{folder}/{folder.split('/')[-1]}-{n}.jpeg": picture(f"{folder}{n}")
        for folder in folders
        for n in range(count)
    }


def make_zip(path, files, folders=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for folder in folders:
            made.mkdir(folder)
        for name, content in files.items():
            made.writestr(name, content)
    return path


def make_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def use(workspace, **dataset):
    """Point the workspace's profile to a source."""
    profile = YAML(typ="safe", pure=True).load(TINY_PROFILE) | {"dataset": dataset}
    with open(workspace / "profiles" / "tiny.yaml", "w") as file:
        YAML().dump(profile, file)


@pytest.fixture
def stage(workspace, monkeypatch, capfd):
    """Run the stage's command in this process (a process for each bad input would take a minute);
    return (status, output, errors).
    """

    def run(**dataset):
        use(workspace, **dataset)
        monkeypatch.chdir(workspace)
        status = download.main()
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    run.raw = workspace / "data" / "raw"
    return run


def files_in(raw):
    return sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file())


def refused(stage, expected, **dataset):
    """The stage fails with one clear message and leaves data/ as it was."""
    stage.raw.mkdir(parents=True)
    (stage.raw / "before").touch()
    beside = os.listdir(stage.raw.parent)
    status, output, errors = stage(**dataset)
    assert status == 1
    assert errors.startswith("error: ") and "Traceback" not in errors
    for part in [expected] if isinstance(expected, str) else expected:
        assert part in errors
    assert files_in(stage.raw) == ["before"] and os.listdir(stage.raw.parent) == beside


@pytest.fixture(scope="module")
def zips(tmp_path_factory):
    """Two versions of a data set, of some 200 and 300 kB."""
    folder = tmp_path_factory.mktemp("zips")
    made = {4: 1000, 6: 1500}
    names = [
        (f"set/{split}/{c}/{n}.jpeg", f"{split}{c}{n}")
        for split in ("TRAIN", "TEST")
        for c in "AB"
        for n in range(50)
    ]
    return {
        v: make_zip(
            folder / f"{v}.zip", {name: picture(f"{v}{seed}", size) for name, seed in names}
        ).read_bytes()
        for v, size in made.items()
    }


@pytest.fixture
def server(zips):
    with KaggleServer(dict(zips)) as running:
        yield running


@pytest.fixture
def kaggle(server, workspace, tmp_path, monkeypatch, capfd):
    """A machine without any token, whose client speaks to the local server; call it to run the
    stage's command in this process.
    """
    for name in [
        name for name in os.environ if name.startswith("KAGGLE_") or name.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    settings = {
        "HOME": str(home),
        "HEMOTUNE_CACHE": str(tmp_path / "cache"),
        "HEMOTUNE_PAUSE": "0.01",
        "HEMOTUNE_TIMEOUT": "5",
    }
    for name, value in (server.environment | settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(workspace)

    def run(version=6, handle=HANDLE):
        use(workspace, source="kaggle", handle=handle, version=version)
        status = download.main()
        captured = capfd.readouterr()
        assert "SECRET" not in captured.out + captured.err and "Traceback" not in captured.err
        return status, captured.out, captured.err

    def process(version=6, **environment):
        use(workspace, source="kaggle", handle=HANDLE, version=version)
        everything = {
            name: value for name, value in ENVIRONMENT.items() if name in ("PATH", "LANG")
        } | dict(os.environ)
        return subprocess.Popen(
            [sys.executable, "-m", "tasks.download"],
            cwd=workspace,
            env=everything | {"PYTHONPATH": str(workspace)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    run.process, run.home, run.raw = process, home, workspace / "data" / "raw"
    run.folder = tmp_path / "cache" / HANDLE
    return run


def zip_in(kaggle, version=6):
    return kaggle.folder / str(version) / "blood-cells.zip"


def arrived(kaggle, server, version=6):
    """The cache holds this version, byte by byte, and nothing half-done."""
    assert zip_in(kaggle, version).read_bytes() == server.versions[version]
    return sorted(os.listdir(kaggle.folder / str(version))) == [".lock", "blood-cells.zip"]


def fails(kaggle, *expected, status=1):
    """The command fails with one clear message and this exit status; neither data/raw nor a zip
    that looks finished is there.
    """
    ended, output, errors = kaggle()
    assert ended == status and errors.startswith(("error: ", "warning: "))
    for part in expected:
        assert part in errors
    assert not kaggle.raw.exists() and not zip_in(kaggle).exists()
    return output


def parts_asked(server):
    return [
        request["headers"].get("range") for request in server.seen if request["place"] == "storage"
    ]
