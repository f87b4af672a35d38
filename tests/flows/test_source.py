"""A source that changes: every run checks files on this machine, and shows when a server was last
queried.
"""

import json
from pathlib import Path

import pytest

from flows import repository, source
from flows.dag import Meta, Stage
from tests.flows.toy import Toy


@pytest.mark.slow
def test_every_run_sees_a_changed_file_also_after_dvc_repro(tmp_path, monkeypatch, capfd):
    toy = Toy(tmp_path / "toy", names="a", seconds=0.0)
    toy.write("local", "")
    assert toy.run("dvc", "repro", "-q").returncode == 0
    monkeypatch.chdir(toy.folder)

    def to_be_forced():
        return {stage.name: stage.changed for stage in repository.inspect().stages if stage.forced}

    assert to_be_forced() == {}
    toy.write("source.txt", "v2")
    assert to_be_forced() == {"download": ["a change of the data at its source"]}
    (toy.folder / "source.txt").unlink()
    capfd.readouterr()
    assert to_be_forced() == {}
    assert (
        capfd.readouterr().err
        == "warning: download: source.txt: cannot be read (No such file or directory)\n"
    )


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage whose source is a server, queried when the stage ran; its command prints `answer`."""
    monkeypatch.chdir(tmp_path)
    Path("state.json").write_text(json.dumps({"version": 6, "asked": "2026-01-02T03:04:05+00:00"}))
    meta = Meta(source="cat answer", state="state.json")
    return Stage("download", upstream=[], changed=[], forced=False, meta=meta)


def test_every_run_shows_when_a_server_was_last_queried(stage):
    last = "download: its source was last checked on"
    assert source.last_query(stage) == f"{last} 2026-01-02 03:04 UTC"
    Path("answer").write_text(json.dumps({"version": 6, "asked": "2026-01-03T06:00:00+00:00"}))
    assert not source.differ(source.query(stage), source.last_fetched(stage.meta))
    assert source.last_query(stage) == f"{last} 2026-01-03 06:00 UTC"
    Path("answer").write_text(json.dumps({"version": 7, "asked": "2026-01-04T06:00:00+00:00"}))
    assert source.differ(source.query(stage), source.last_fetched(stage.meta))


def test_nothing_is_shown_of_a_source_without_a_server(stage):
    Path("state.json").write_text(json.dumps({"source": "sample"}))
    assert source.last_query(stage) is None
