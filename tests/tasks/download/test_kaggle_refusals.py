"""Source kaggle: errors that the user can fix are reported with the fix; and what the scheduled
flow asks.
"""

import json

import pytest
import requests
from kagglesdk import KaggleClient, KaggleEnv

from hemotune.errors import TEMPORARY_FAILURE, StudyError
from tasks.download.kaggle_source import latest_version
from tests.tasks.download.conftest import TOKEN, fails, make_zip, parts_asked, pictures, zip_in
from tests.tasks.download.kaggle_server import HANDLE


def test_kagglesdk_has_the_session_that_needs_timeouts(kaggle):
    http = KaggleClient(KaggleEnv.LOCAL).http_client().__enter__()
    assert isinstance(getattr(http, "_session", None), requests.Session), (
        "kagglesdk no longer keeps its session in _session: kaggle_client.connect cannot set its"
        " timeouts there"
    )


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
        (403, "you must accept its rules"),
        (404, "correct dataset.handle or dataset.version"),
        (407, "the proxy needs a password"),
        (418, "(418)"),
    ],
)
def test_refusals(kaggle, server, monkeypatch, status, expected):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    body = json.dumps({"code": status, "message": f"SECRET {TOKEN}"}).encode()
    server.faults["DownloadDataset"] += [
        {"status": status, "body": body, "type": "application/json"}
    ]
    fails(kaggle, expected)


def test_no_such_version(kaggle, server):
    status, output, errors = kaggle(version=99)
    assert status == 1 and "version 99: there is no such data set or version (404)" in errors


def test_token_no_header_can_carry(kaggle, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_SECRET\u2026 ")
    fails(kaggle, "the token contains invalid characters")
    # The client takes it for a path, one too long
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_SECRET" * 100)
    assert kaggle()[0] == 0


def test_kaggle_json_that_does_not_parse(kaggle):
    (kaggle.home / ".kaggle").mkdir()
    (kaggle.home / ".kaggle" / "kaggle.json").write_text('{"username": "SECRET"')
    fails(kaggle, "kaggle.json: cannot be read, or is not JSON with username and key")


def test_no_network(kaggle, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    fails(
        kaggle,
        "no connection",
        "gave up after 6 attempts",
        "Check the network",
        status=TEMPORARY_FAILURE,
    )


@pytest.mark.parametrize("place", ["GetDataset", "DownloadDataset", "storage"])
def test_proxy_that_answers_html(kaggle, server, place):
    server.faults[place] += [{"status": 200}]
    status, output, errors = kaggle(version="latest")
    assert status == 1 and "answered with a web page" in errors and not kaggle.raw.exists()


def test_proxy_that_redirects_to_its_login_page(kaggle, server):
    server.faults["DownloadDataset"] += [
        {"status": 302, "headers": {"Location": "http://login.invalid/archive/6?"}}
    ]
    server.faults["storage"] += [{"status": 200}]
    fails(kaggle, "answered with a web page")


def test_less_room_than_is_announced(kaggle, server):
    server.faults["storage"] += [{"announce": 10**15}]
    fails(kaggle, "the disk is full (1000 TB still to download", "HEMOTUNE_CACHE")


def test_disk_that_fills_while_writing(kaggle, server):
    partial = zip_in(kaggle).with_name("blood-cells.zip.partial")
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")
    fails(kaggle, "the disk is full (No space left on device)")


def test_cache_that_cannot_be_written(kaggle, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEMOTUNE_CACHE", str(tmp_path / "file"))
    fails(kaggle, "cannot be written", "set HEMOTUNE_CACHE")


def test_dangerous_zip_is_refused_and_not_fetched_again(kaggle, server, tmp_path):
    server.versions[6] = make_zip(
        tmp_path / "bad.zip", pictures("A", "B") | {"../evil.png": b"x"}
    ).read_bytes()
    fails(kaggle, "'../evil.png' points outside")
    assert len(parts_asked(server)) == 1


def test_latest_version_is_one_request(kaggle, server, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    version = latest_version(HANDLE)
    assert (version.number, version.updated[:19]) == (6, "2018-04-21T21:06:30")
    assert server.places() == ["GetDataset"]


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        {"status": 429},
        {"status": 200},
        {"stall": 0},
        {"status": 200, "body": b"[]", "type": "application/json"},
    ],
)
def test_latest_version_says_at_once_what_is_wrong(kaggle, server, monkeypatch, fault):
    monkeypatch.setenv("HEMOTUNE_TIMEOUT", "0.2")
    server.faults["GetDataset"] += [fault]
    with pytest.raises(StudyError, match=f"kaggle: {HANDLE}: "):
        latest_version(HANDLE)
    assert len(server.seen) == 1
