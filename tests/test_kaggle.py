"""Source kaggle, with the real client against tests/kaggle_server.py: what arrives, what is said, what is never said."""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import pytest

from tasks import download
from tasks.errors import StudyError
from tasks.kaggle_source import latest_version
from tests.conftest import ENVIRONMENT
from tests.kaggle_server import HANDLE, SIGNATURE, KaggleServer
from tests.test_download import brought, make_zip, picture, pictures, use

TOKEN = "KGAT_0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def zips(tmp_path_factory):
    """Two versions of a data set, of some 200 and 300 kB."""
    folder = tmp_path_factory.mktemp("zips")
    made = {4: 1000, 6: 1500}
    names = [(f"set/{split}/{c}/{n}.jpeg", f"{split}{c}{n}") for split in ("TRAIN", "TEST") for c in "AB" for n in range(50)]
    return {
        v: make_zip(folder / f"{v}.zip", {name: picture(f"{v}{seed}", size) for name, seed in names}).read_bytes()
        for v, size in made.items()
    }


@pytest.fixture
def server(zips):
    with KaggleServer(dict(zips)) as running:
        yield running


@pytest.fixture
def kaggle(server, workspace, tmp_path, monkeypatch, capfd):
    """A machine without any token, whose client speaks to the local server; call it to run the stage's command in this process."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    settings = {"HOME": str(home), "HEMOTUNE_CACHE": str(tmp_path / "cache"), "HEMOTUNE_PAUSE": "0.01", "HEMOTUNE_TIMEOUT": "5"}
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
        everything = {name: value for name, value in ENVIRONMENT.items() if name in ("PATH", "LANG")} | dict(os.environ)
        return subprocess.Popen(
            [sys.executable, "-m", "tasks.download"], cwd=workspace, env=everything | {"PYTHONPATH": str(workspace)} | environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    run.process, run.home, run.raw = process, home, workspace / "data" / "raw"
    run.folder = tmp_path / "cache" / HANDLE
    return run


def zip_in(kaggle, version=6):
    return kaggle.folder / str(version) / "blood-cells.zip"


def arrived(kaggle, server, version=6):
    """The cache holds this version, byte by byte, and nothing half-done."""
    assert zip_in(kaggle, version).read_bytes() == server.versions[version]
    return sorted(os.listdir(kaggle.folder / str(version))) == [".lock", "blood-cells.zip"]


def fails(kaggle, *expected):
    """The command fails with one clear message; neither data/raw nor a zip that looks finished is there."""
    status, output, errors = kaggle()
    assert status == 1 and errors.startswith(("error: ", "warning: "))
    for part in expected:
        assert part in errors
    assert not kaggle.raw.exists() and not zip_in(kaggle).exists()
    return output


# What arrives


def test_pinned_version_without_a_token_from_a_process(kaggle, server):
    output, errors = (running := kaggle.process(version=4)).communicate(timeout=60)
    assert running.returncode == 0, errors
    assert errors == "" and arrived(kaggle, server, 4)
    assert server.places() == ["DownloadDataset", "storage"]
    assert re.search(r"\[100%\] download (\d+)/\1, \d+ kB/s", output)
    assert f"kaggle: {HANDLE} version 4: {zip_in(kaggle, 4)} (" in output
    source = json.loads((kaggle.raw / "source.json").read_text())
    assert (source["source"], source["reference"], source["version"], source["images"]) == ("kaggle", HANDLE, "4", 200)
    assert (kaggle.raw / "images/TEST/B/7.jpeg").read_bytes() == picture("4TESTB7", 1000)


def test_a_version_is_downloaded_once_and_later_needs_no_network(kaggle, server):
    assert kaggle()[0] == 0
    asked = len(server.seen)
    assert kaggle()[0] == 0 and len(server.seen) == asked


def test_latest_is_recorded_as_the_version_it_was_and_a_newer_one_comes(kaggle, server):
    newest = server.versions.pop(6)
    assert kaggle(version="latest")[0] == 0
    assert json.loads((kaggle.raw / "source.json").read_text())["version"] == "4"
    server.versions[6] = newest
    assert kaggle(version="latest")[0] == 0
    assert json.loads((kaggle.raw / "source.json").read_text())["version"] == "6"
    assert arrived(kaggle, server, 4) and arrived(kaggle, server, 6)


@pytest.mark.parametrize("kind", ["environment", "file named in the environment", "access_token", "kaggle.json", "user and key"])
def test_tokens_are_found_where_the_client_finds_them(kaggle, server, monkeypatch, kind):
    server.token = "someone:0123456789" if kind in ("kaggle.json", "user and key") else TOKEN
    folder = kaggle.home / ".kaggle"
    folder.mkdir()
    user, _, key = server.token.partition(":")
    file = {"file named in the environment": "my-token", "kaggle.json": "kaggle.json"}.get(kind, "access_token")
    if kind == "user and key":
        monkeypatch.setenv("KAGGLE_USERNAME", user)
        monkeypatch.setenv("KAGGLE_KEY", key)
    elif kind == "environment":
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    else:
        content = json.dumps({"username": user, "key": key}) if kind == "kaggle.json" else TOKEN + "\n"
        (folder / file).touch(mode=0o600)
        (folder / file).write_text(content)
        if kind == "file named in the environment":
            monkeypatch.setenv("KAGGLE_API_TOKEN", str(folder / file))
    status, output, errors = kaggle()
    assert (status, errors) == (0, "")
    # The storage is another host: it gets the signed link, and no token.
    assert ["authorization" in request["headers"] for request in server.seen] == [True, False]


def test_login_by_the_kaggle_command(kaggle, server):
    server.token = TOKEN
    login = {"refresh_token": "r", "access_token": TOKEN, "username": "u", "scopes": []}
    (kaggle.home / ".kaggle").mkdir()
    file = kaggle.home / ".kaggle" / "credentials.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(login | {"access_token_expiration": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}))
    assert kaggle()[0] == 0


def test_token_that_others_can_read_is_a_warning_with_the_fix(kaggle, server):
    server.token = "someone:0123456789"
    (kaggle.home / ".kaggle").mkdir()
    file = kaggle.home / ".kaggle" / "kaggle.json"
    file.write_text('{"username": "someone", "key": "0123456789"}')
    file.chmod(0o644)
    server.faults["DownloadDataset"] += [{"status": 503}]
    status, output, errors = kaggle()
    assert status == 0
    assert errors == f"warning: {file} holds your Kaggle token and other users can read it: chmod 600 {file}\n"


# Faults that are overcome


def parts_asked(server):
    return [request["headers"].get("range") for request in server.seen if request["place"] == "storage"]


def test_broken_bodies_and_busy_servers_are_overcome(kaggle, server):
    server.faults["DownloadDataset"] += [{"status": 503}, None, {"status": 500}]
    server.faults["storage"] += [{"cut": 100_000}, {"status": 403}, {"cut": 0}]
    status, output, errors = kaggle()
    assert (status, errors) == (0, "") and arrived(kaggle, server)
    assert output.count("attempt 2 of 6") == 1 and "the server failed (503)" in output and "was refused (403)" in output
    first, *rest = parts_asked(server)
    assert first is None and all(re.fullmatch(r"bytes=\d{5}-", part) for part in rest)
    assert server.sent - len(server.versions[6]) < 1 << 14  # fetched twice: less than a block
    assert "kaggle: going on at " in output


def test_pauses_grow_and_the_last_status_is_told(kaggle, server, monkeypatch):
    monkeypatch.setenv("HEMOTUNE_PAUSE", "0.02")
    server.faults["DownloadDataset"] += [{"status": 500}] * 5 + [{"status": 503}]
    fails(kaggle, "the server failed (503); gave up after 6 attempts")
    times = [request["at"] for request in server.seen]
    pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert len(pauses) == 5 and all(pause >= 0.02 * 2**n for n, pause in enumerate(pauses))


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_too_many_requests_waits_as_told(kaggle, server, kind):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server.faults["DownloadDataset"] += [{"status": 429, "headers": {"Retry-After": "1" if kind == "seconds" else date}}]
    status, output, errors = kaggle()
    assert status == 0 and "too many requests (429); attempt 2 of 6 in " in output
    first, second = (request["at"] for request in server.seen[:2])
    if kind == "seconds":
        assert second - first >= 1
    else:
        assert datetime.now(UTC) - timedelta(seconds=time.monotonic() - second) >= parsedate_to_datetime(date)


def test_a_pause_of_hours_is_not_waited_for(kaggle, server):
    server.faults["DownloadDataset"] += [{"status": 429, "headers": {"Retry-After": "7200"}}]
    fails(kaggle, "too many requests (429); it asks for a pause of 7200 s", "try again later")


def test_stall_in_the_body_times_out_and_goes_on(kaggle, server, monkeypatch):
    monkeypatch.setenv("HEMOTUNE_TIMEOUT", "0.5")
    server.faults["storage"] += [{"stall": 50_000}]
    server.faults["DownloadDataset"] += [{"stall": 0}]
    status, output, errors = kaggle()
    assert status == 0 and arrived(kaggle, server)
    assert output.count("stalled: not a byte for 0.5 s") >= 2


def test_silent_server_is_given_up(kaggle, server, monkeypatch):
    monkeypatch.setenv("HEMOTUNE_TIMEOUT", "0.1")
    server.faults["DownloadDataset"] += [{"stall": 0}] * 6
    fails(kaggle, "stalled", "gave up after 6 attempts")


def test_connection_that_breaks_after_each_megabyte_arrives(kaggle, server, tmp_path):
    server.versions[6] = make_zip(
        tmp_path / "large.zip", {f"{c}/{n}.png": picture(f"{c}{n}", 1_100_000) for c in "AB" for n in range(5)}
    ).read_bytes()
    server.faults["storage"] += [{"cut": 1_100_000}] * 9
    status, output, errors = kaggle()
    assert status == 0 and arrived(kaggle, server)
    assert output.count("attempt 2 of 6") == 9


def test_file_changed_between_two_parts(kaggle, server, zips):
    """The storage sends the whole anew, as If-Range asks it to."""
    server.faults["storage"] += [{"cut": 100_000}] + [{"cut": 0}] * 5
    fails(kaggle, "gave up")
    server.versions[6] = zips[4]
    status, output, errors = kaggle()
    assert status == 0 and "the server sends the whole anew" in output and arrived(kaggle, server)
    assert (kaggle.raw / "images/TRAIN/A/0.jpeg").read_bytes() == picture("4TRAINA0", 1000)


@pytest.mark.parametrize("wrong", [{"ETag": '"other"'}, {"Content-Range": "bytes 5-300000/300001"}, {"Content-Range": None}])
def test_part_that_does_not_fit_is_never_appended(kaggle, server, wrong):
    server.faults["storage"] += [{"cut": 100_000}, {"announce": 0, "headers": wrong}]
    status, output, errors = kaggle()
    assert status == 0 and "changed between two parts" in output and arrived(kaggle, server)


@pytest.mark.parametrize("headers", [{"ETag": 'W/"weak"', "Last-Modified": None}, {"ETag": None, "Last-Modified": None}])
def test_without_a_validator_the_whole_is_fetched_anew(kaggle, server, headers):
    server.faults["storage"] += [{"cut": 100_000, "headers": headers}]
    assert kaggle()[0] == 0 and arrived(kaggle, server)
    assert parts_asked(server) == [None, None]


def test_body_longer_than_announced_is_noticed(kaggle, server):
    server.faults["storage"] += [{"announce": -5000}]
    status, output, errors = kaggle()
    assert status == 0 and "what came is damaged" in output and arrived(kaggle, server)


def test_body_shorter_than_announced_is_noticed(kaggle, server):
    server.faults["storage"] += [{"announce": 5000}]
    status, output, errors = kaggle()
    assert status == 0 and "it broke off" in output and arrived(kaggle, server)


def test_body_that_never_gets_longer_is_given_up_and_what_came_is_kept(kaggle, server):
    server.faults["storage"] += [{"cut": 100_000}] + [{"cut": 0}] * 5
    fails(kaggle, "it broke off", "gave up after 6 attempts", "the 98 kB that came are kept")
    assert kaggle()[0] == 0 and arrived(kaggle, server) and parts_asked(server)[-1] == "bytes=98304-"


def test_length_not_announced(kaggle, server):
    server.faults["storage"] += [{"announce": 0, "headers": {"Content-Length": None}}]
    assert kaggle()[0] == 0 and arrived(kaggle, server)


@pytest.mark.parametrize("more", [0, 1000])
def test_partial_file_already_as_long_as_the_whole(kaggle, server, more):
    """Stopped after the last byte and before the check: not asked for again. Longer: thrown away."""
    data = server.versions[6]
    partial = zip_in(kaggle).with_name("blood-cells.zip.partial")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data + b"x" * more)
    note = {"validator": f'"{hashlib.md5(data).hexdigest()}"', "size": len(data)}
    partial.with_name(partial.name + ".json").write_text(json.dumps(note))
    status, output, errors = kaggle()
    assert status == 0 and arrived(kaggle, server)
    assert server.sent == (len(data) if more else 0)


def test_damaged_zip_is_fetched_anew_once(kaggle, server, zips):
    """The same size, a wrong byte in an image: only its CRC tells."""
    damaged = zips[6][:5000] + bytes([zips[6][5000] ^ 1]) + zips[6][5001:]
    server.versions[6] = damaged
    output = fails(kaggle, "came damaged twice")
    assert output.count("what came is damaged (the CRC of set/") == 2 and parts_asked(server) == [None, None]
    server.versions[6] = zips[6]
    assert kaggle()[0] == 0 and arrived(kaggle, server)


def test_garbage_appended_by_an_interrupted_run_is_not_trusted(kaggle, server):
    """What Kaggle's client did: an error's text in place of the first part, then the rest appended, at the right size."""
    data = server.versions[6]
    zip_in(kaggle).parent.mkdir(parents=True)
    zip_in(kaggle).write_bytes(b"<html>Service unavailable</html>".ljust(100_000) + data[100_000:])
    status, output, errors = kaggle()
    assert status == 0 and "is damaged" in output and arrived(kaggle, server)


# Faults that are the user's to mend


def test_wrong_token(kaggle, server, monkeypatch):
    server.token = TOKEN
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_SECRET")
    fails(kaggle, "the token was refused (401)", "https://www.kaggle.com/settings/api")
    assert len(server.seen) == 1


def test_private_and_no_token(kaggle, server):
    server.token = TOKEN
    fails(kaggle, "no token was found (403)", "KAGGLE_API_TOKEN")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, "its rules wait for your consent"),
        (404, "correct dataset.handle or dataset.version"),
        (407, "the proxy asks for a password"),
        (418, "(418)"),
    ],
)
def test_refusals(kaggle, server, monkeypatch, status, expected):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    body = json.dumps({"code": status, "message": f"SECRET {TOKEN}"}).encode()
    server.faults["DownloadDataset"] += [{"status": status, "body": body, "type": "application/json"}]
    fails(kaggle, expected)


def test_no_such_version(kaggle, server):
    status, output, errors = kaggle(version=99)
    assert status == 1 and "version 99: there is no such data set, or not this version of it (404)" in errors


def test_token_no_header_can_carry(kaggle, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_SECRET\u2026 ")
    fails(kaggle, "the token holds characters that no token has")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_SECRET" * 100)  # the client takes it for a path, one too long
    assert kaggle()[0] == 0


def test_kaggle_json_that_does_not_parse(kaggle):
    (kaggle.home / ".kaggle").mkdir()
    (kaggle.home / ".kaggle" / "kaggle.json").write_text('{"username": "SECRET"')
    fails(kaggle, "kaggle.json: cannot be read, or is no JSON with username and key")


def test_no_network(kaggle, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    fails(kaggle, "no connection", "gave up after 6 attempts", "Check the network")


@pytest.mark.parametrize("place", ["GetDataset", "DownloadDataset", "storage"])
def test_proxy_that_answers_html(kaggle, server, place):
    server.faults[place] += [{"status": 200}]
    status, output, errors = kaggle(version="latest")
    assert status == 1 and "answered with a web page" in errors and not kaggle.raw.exists()


def test_proxy_that_redirects_to_its_login_page(kaggle, server):
    server.faults["DownloadDataset"] += [{"status": 302, "headers": {"Location": "http://login.invalid/archive/6?"}}]
    server.faults["storage"] += [{"status": 200}]
    fails(kaggle, "answered with a web page")


def test_less_room_than_is_announced(kaggle, server):
    server.faults["storage"] += [{"announce": 10**15}]
    fails(kaggle, "no room on the disk (1000 TB are still to come", "HEMOTUNE_CACHE")


def test_disk_that_fills_while_writing(kaggle, server):
    partial = zip_in(kaggle).with_name("blood-cells.zip.partial")
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")
    fails(kaggle, "no room on the disk (No space left on device)")


def test_cache_that_cannot_be_written(kaggle, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEMOTUNE_CACHE", str(tmp_path / "file"))
    fails(kaggle, "cannot be written", "set HEMOTUNE_CACHE")


def test_dangerous_zip_is_refused_and_not_fetched_again(kaggle, server, tmp_path):
    server.versions[6] = make_zip(tmp_path / "bad.zip", pictures("A", "B") | {"../evil.png": b"x"}).read_bytes()
    fails(kaggle, "'../evil.png' leads outside")
    assert len(parts_asked(server)) == 1


# Stopped, killed, twice at once


def test_killed_at_ten_points_and_started_again(kaggle, server, workspace):
    """Each process gets a few bytes more and is killed; the last one finishes with the right bytes, hardly any fetched twice."""
    use(workspace, source="kaggle", handle=HANDLE, version=6)
    size, fork = len(server.versions[6]), multiprocessing.get_context("fork")  # no new imports: ten processes in a second
    points = sorted(random.Random(5).sample(range(size), 10))
    for before, point in zip([0, *points], points, strict=False):
        server.faults["storage"] += [{"stall": point - before}]
        sent = server.sent
        running = fork.Process(target=download.main)
        running.start()
        while server.sent - sent < point - before and running.is_alive():
            time.sleep(0.002)
        time.sleep(random.Random(point).random() * 0.02)
        running.kill()
        running.join()
        assert running.exitcode == -signal.SIGKILL
        assert not zip_in(kaggle).exists() and not kaggle.raw.exists()
    assert kaggle()[0] == 0 and arrived(kaggle, server)
    assert len(brought(kaggle.raw)) == 201


def test_interrupted_by_the_user(kaggle, server):
    server.faults["storage"] += [{"stall": 100_000}]
    running = kaggle.process()
    while not (partial := zip_in(kaggle).with_name("blood-cells.zip.partial")).exists() or not partial.stat().st_size:
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=20)
    assert running.returncode == 130 and "are kept in" in output and errors.startswith("stopped: interrupted")
    assert not zip_in(kaggle).exists() and not kaggle.raw.exists()
    assert kaggle()[0] == 0 and arrived(kaggle, server)
    assert parts_asked(server)[1] is not None


def test_second_checkout_waits_and_downloads_nothing(kaggle, server):
    zip_in(kaggle).parent.mkdir(parents=True)
    with open(zip_in(kaggle).parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = kaggle.process()
        assert "another run is downloading" in running.stdout.readline()
        zip_in(kaggle).write_bytes(server.versions[6])
    running.communicate(timeout=20)
    assert running.returncode == 0 and server.seen == []


# What is never said


def found_in(secrets, texts, *folders):
    """Where a secret appears: in one of the texts, or in a file."""
    texts |= {str(path): path.read_bytes().decode("latin-1") for top in folders for path in top.rglob("*") if path.is_file()}
    return [where for where, text in texts.items() for secret in secrets if secret in text]


def test_token_and_signed_link_appear_nowhere(kaggle, server, workspace):
    """The client's VERBOSE prints each header; and the link is refused once, and stalls once, as errors could tell it."""
    server.token = TOKEN
    server.faults["storage"] += [{"status": 403}, {"stall": 100_000}]
    running = kaggle.process(KAGGLE_API_TOKEN=TOKEN, VERBOSE="true", VERBOSE_OUTPUT="1", HEMOTUNE_TIMEOUT="1")
    while len(parts_asked(server)) < 2:
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    listed = process_list()
    output, errors = running.communicate(timeout=30)
    assert running.returncode == 0 and "tasks.download" in listed
    texts = {"output": output, "errors": errors, "process list": listed}
    assert found_in([TOKEN, SIGNATURE], texts, workspace, kaggle.folder, kaggle.home) == []


def process_list():
    """The command lines of all processes, as `ps` shows them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            lines.append(path.read_bytes().decode("latin-1").replace("\0", " "))
    return "\n".join(lines)


@pytest.mark.parametrize("place", ["DownloadDataset", "storage"])
def test_token_and_signed_link_appear_in_no_error(kaggle, server, workspace, monkeypatch, place):
    server.token = TOKEN
    for name, value in {"KAGGLE_API_TOKEN": TOKEN, "VERBOSE": "true", "HEMOTUNE_TIMEOUT": "0.1"}.items():
        monkeypatch.setenv(name, value)
    server.faults[place] += [{"stall": 0}] * 3 + [{"status": 500, "body": f"{TOKEN} {SIGNATURE}".encode()}] * 9
    status, output, errors = kaggle()
    assert status == 1
    assert found_in([TOKEN, SIGNATURE], {"output": output, "errors": errors}, workspace, kaggle.folder) == []


# What the scheduled flow asks


def test_latest_version_is_one_request(kaggle, server, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    number, updated = latest_version(HANDLE)
    assert (number, updated[:19]) == (6, "2018-04-21T21:06:30") and server.places() == ["GetDataset"]


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 429}, {"status": 200}, {"stall": 0}, {"status": 200, "body": b"[]", "type": "application/json"}]
)
def test_latest_version_says_at_once_what_is_wrong(kaggle, server, monkeypatch, fault):
    monkeypatch.setenv("HEMOTUNE_TIMEOUT", "0.2")
    server.faults["GetDataset"] += [fault]
    with pytest.raises(StudyError, match=f"kaggle: {HANDLE}: "):
        latest_version(HANDLE)
    assert len(server.seen) == 1
