"""Source kaggle: faults of network and server that are overcome, and what is never trusted."""

import hashlib
import json
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest

from hemotune.errors import TEMPORARY_FAILURE
from tests.tasks.download.conftest import arrived, fails, make_zip, parts_asked, picture, zip_in


def test_broken_bodies_and_busy_servers_are_overcome(kaggle, server):
    server.faults["DownloadDataset"] += [{"status": 503}, None, {"status": 500}]
    server.faults["storage"] += [{"cut": 100_000}, {"status": 403}, {"cut": 0}]
    status, output, errors = kaggle()
    assert (status, errors) == (0, "") and arrived(kaggle, server)
    assert (
        output.count("attempt 2 of 6") == 1
        and "server error (503)" in output
        and "was refused (403)" in output
    )
    first, *rest = parts_asked(server)
    assert first is None and all(re.fullmatch(r"bytes=\d{5}-", part) for part in rest)
    assert server.sent - len(server.versions[6]) < 1 << 14  # fetched twice: less than a block
    assert "kaggle: resuming at " in output


def test_pauses_grow_and_the_last_status_is_reported(kaggle, server, monkeypatch):
    monkeypatch.setenv("HEMOTUNE_PAUSE", "0.02")
    server.faults["DownloadDataset"] += [{"status": 500}] * 5 + [{"status": 503}]
    fails(kaggle, "server error (503); gave up after 6 attempts", status=TEMPORARY_FAILURE)
    times = [request["at"] for request in server.seen]
    pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert len(pauses) == 5 and all(pause >= 0.02 * 2**n for n, pause in enumerate(pauses))


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_too_many_requests_waits_as_the_server_asks(kaggle, server, kind):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server.faults["DownloadDataset"] += [
        {"status": 429, "headers": {"Retry-After": "1" if kind == "seconds" else date}}
    ]
    status, output, errors = kaggle()
    assert status == 0 and "too many requests (429); attempt 2 of 6 in " in output
    first, second = (request["at"] for request in server.seen[:2])
    if kind == "seconds":
        assert second - first >= 1
    else:
        assert datetime.now(UTC) - timedelta(
            seconds=time.monotonic() - second
        ) >= parsedate_to_datetime(date)


def test_a_pause_of_hours_is_not_waited_for(kaggle, server):
    server.faults["DownloadDataset"] += [{"status": 429, "headers": {"Retry-After": "7200"}}]
    fails(
        kaggle,
        "too many requests (429); the server requests a pause of 7200 s",
        "try again later",
        status=TEMPORARY_FAILURE,
    )


def test_stall_in_the_body_times_out_and_goes_on(kaggle, server, monkeypatch):
    monkeypatch.setenv("HEMOTUNE_TIMEOUT", "0.5")
    server.faults["storage"] += [{"stall": 50_000}]
    server.faults["DownloadDataset"] += [{"stall": 0}]
    status, output, errors = kaggle()
    assert status == 0 and arrived(kaggle, server)
    assert output.count("stalled: no data for 0.5 s") >= 2


def test_silent_server_is_given_up(kaggle, server, monkeypatch):
    monkeypatch.setenv("HEMOTUNE_TIMEOUT", "0.1")
    server.faults["DownloadDataset"] += [{"stall": 0}] * 6
    fails(kaggle, "stalled", "gave up after 6 attempts", status=TEMPORARY_FAILURE)


def test_connection_that_breaks_after_each_megabyte_arrives(kaggle, server, tmp_path):
    server.versions[6] = make_zip(
        tmp_path / "large.zip",
        {f"{c}/{n}.png": picture(f"{c}{n}", 1_100_000) for c in "AB" for n in range(5)},
    ).read_bytes()
    server.faults["storage"] += [{"cut": 1_100_000}] * 9
    status, output, errors = kaggle()
    assert status == 0 and arrived(kaggle, server)
    assert output.count("attempt 2 of 6") == 9


def test_file_changed_between_two_parts(kaggle, server, zips):
    """The storage sends the whole file again, as If-Range requires."""
    server.faults["storage"] += [{"cut": 100_000}] + [{"cut": 0}] * 5
    fails(kaggle, "gave up", status=TEMPORARY_FAILURE)
    server.versions[6] = zips[4]
    status, output, errors = kaggle()
    assert (
        status == 0
        and "the server sends the whole file again" in output
        and arrived(kaggle, server)
    )
    assert (kaggle.raw / "images/TRAIN/A/0.jpeg").read_bytes() == picture("4TRAINA0", 1000)


@pytest.mark.parametrize(
    "wrong",
    [{"ETag": '"other"'}, {"Content-Range": "bytes 5-300000/300001"}, {"Content-Range": None}],
)
def test_part_that_does_not_fit_is_never_appended(kaggle, server, wrong):
    server.faults["storage"] += [{"cut": 100_000}, {"announce": 0, "headers": wrong}]
    status, output, errors = kaggle()
    assert status == 0 and "changed between two parts" in output and arrived(kaggle, server)


@pytest.mark.parametrize(
    "headers", [{"ETag": 'W/"weak"', "Last-Modified": None}, {"ETag": None, "Last-Modified": None}]
)
def test_without_a_validator_the_whole_is_downloaded_again(kaggle, server, headers):
    server.faults["storage"] += [{"cut": 100_000, "headers": headers}]
    assert kaggle()[0] == 0 and arrived(kaggle, server)
    assert parts_asked(server) == [None, None]


def test_body_longer_than_announced_is_noticed(kaggle, server):
    server.faults["storage"] += [{"announce": -5000}]
    status, output, errors = kaggle()
    assert status == 0 and "the download is damaged" in output and arrived(kaggle, server)


def test_body_shorter_than_announced_is_noticed(kaggle, server):
    server.faults["storage"] += [{"announce": 5000}]
    status, output, errors = kaggle()
    assert status == 0 and "connection lost" in output and arrived(kaggle, server)


def test_body_that_never_gets_longer_is_given_up_and_what_came_is_kept(kaggle, server):
    server.faults["storage"] += [{"cut": 100_000}] + [{"cut": 0}] * 5
    fails(
        kaggle,
        "connection lost",
        "gave up after 6 attempts",
        "the 98 kB that have arrived are kept",
        status=TEMPORARY_FAILURE,
    )
    assert (
        kaggle()[0] == 0 and arrived(kaggle, server) and parts_asked(server)[-1] == "bytes=98304-"
    )


def test_length_not_announced(kaggle, server):
    server.faults["storage"] += [{"announce": 0, "headers": {"Content-Length": None}}]
    assert kaggle()[0] == 0 and arrived(kaggle, server)


@pytest.mark.parametrize("more", [0, 1000])
def test_partial_file_already_as_long_as_the_whole(kaggle, server, more):
    """Stopped after the last byte and before the check: not asked for again. Longer: thrown
    away.
    """
    data = server.versions[6]
    partial = zip_in(kaggle).with_name("blood-cells.zip.partial")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data + b"x" * more)
    note = {"validator": f'"{hashlib.md5(data).hexdigest()}"', "size": len(data)}
    partial.with_name(partial.name + ".json").write_text(json.dumps(note))
    status, output, errors = kaggle()
    assert status == 0 and arrived(kaggle, server)
    assert server.sent == (len(data) if more else 0)


def test_damaged_zip_is_downloaded_again_once(kaggle, server, zips):
    """The same size, a wrong byte in an image: only its CRC tells."""
    damaged = zips[6][:5000] + bytes([zips[6][5000] ^ 1]) + zips[6][5001:]
    server.versions[6] = damaged
    output = fails(kaggle, "arrived damaged twice", status=TEMPORARY_FAILURE)
    assert output.count("the download is damaged (the CRC of set/") == 2 and parts_asked(
        server
    ) == [
        None,
        None,
    ]
    server.versions[6] = zips[6]
    assert kaggle()[0] == 0 and arrived(kaggle, server)


def test_garbage_appended_by_an_interrupted_run_is_not_trusted(kaggle, server):
    """What Kaggle's client did: an error's text in place of the first part, then the rest appended,
    at the right size.
    """
    data = server.versions[6]
    zip_in(kaggle).parent.mkdir(parents=True)
    zip_in(kaggle).write_bytes(b"<html>Service unavailable</html>".ljust(100_000) + data[100_000:])
    status, output, errors = kaggle()
    assert status == 0 and "is damaged" in output and arrived(kaggle, server)
