"""What flows.repository repairs before it calls DVC, in a small repository of its own."""

from pathlib import Path

import pytest
from dvc.repo import Repo

from flows import repository
from tests.flows.toy import Toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return Toy(tmp_path_factory.mktemp("repository") / "toy")


@pytest.fixture
def rwlock(toy, monkeypatch):
    monkeypatch.chdir(toy.folder)
    path = Path(".dvc/tmp/rwlock")
    path.parent.mkdir(exist_ok=True)
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("text", ["", '{"write": {"/a', '{"write": []}'])
def test_a_damaged_rwlock_is_set_aside(rwlock, capfd, text):
    rwlock.write_text(text)
    assert repository.inspect().stages[0].name == "download"
    assert rwlock.with_name("rwlock.damaged").read_text() == text
    assert (
        capfd.readouterr().err
        == "warning: .dvc/tmp/rwlock is damaged; set aside as .dvc/tmp/rwlock.damaged\n"
    )


def test_a_rwlock_stays_while_dvc_holds_the_repository(rwlock, monkeypatch):
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0.1)
    rwlock.write_text("")
    with Repo() as repo, repo.lock:
        repository.set_aside_damaged_rwlock()
    assert rwlock.read_text() == ""


def test_a_whole_rwlock_stays(rwlock):
    text = '{"write": {}, "read": {"/a": [{"pid": 1, "cmd": "dvc repro"}]}}'
    rwlock.write_text(text)
    repository.set_aside_damaged_rwlock()
    assert rwlock.read_text() == text
