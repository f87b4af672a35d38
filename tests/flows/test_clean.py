"""Removing what experiments left that params.yaml no longer names."""

import io
import sys

import pytest

from tests.flows.toy import Toy, call


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of a and b that has run, from which b was then removed."""
    toy = Toy(tmp_path_factory.mktemp("clean") / "toy", names="ab", seconds=0.0)
    assert toy.run("dvc", "repro", "-q").returncode == 0
    toy.set("a", 0.0)
    for path in (
        "failures/a.json",
        "failures/b.json",
        "resume/a/1/epoch-1.npz",
        "resume/b/1/epoch-1.npz",
    ):
        (toy.folder / ".study" / path).parent.mkdir(parents=True, exist_ok=True)
        toy.write(f".study/{path}", "{}")
    toy.write("data/results/.a.partial", "")
    return toy


@pytest.fixture
def toy(study, monkeypatch):
    monkeypatch.chdir(study.folder)
    return study


REMOVED = [".study/failures/b.json", ".study/resume/b", "data/results/b"]


def everything(toy):
    """The paths of all files but DVC's own and the lock that every command takes."""
    files = [path.relative_to(toy.folder) for path in toy.folder.rglob("*") if path.is_file()]
    return {path.as_posix() for path in files if not {".dvc", "study.lock"} & set(path.parts)}


@pytest.mark.slow
def test_a_params_file_that_dvc_cannot_read_removes_nothing(toy, monkeypatch, capsys):
    params = (toy.folder / "params.yaml").read_text()
    toy.write("params.yaml", "names: [a")
    before = everything(toy)
    assert call("clean", "--yes") == 1
    assert capsys.readouterr().err.startswith("error: dvc: ")
    assert everything(toy) == before
    toy.write("params.yaml", params)


@pytest.mark.slow
def test_what_removed_experiments_left_is_removed_after_a_question(toy, monkeypatch, capsys):
    before, cache = everything(toy), sorted((toy.folder / ".dvc/cache").rglob("*"))
    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert call("clean") == 0
        output = capsys.readouterr().out
        assert [line.split()[-1] for line in output.splitlines() if " MB  " in line] == REMOVED
        assert output.endswith("nothing was removed\n") and everything(toy) == before

    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert call("clean") == 0
    assert before - everything(toy) == {
        ".study/failures/b.json",
        ".study/resume/b/1/epoch-1.npz",
        "data/results/b",
    }
    assert sorted((toy.folder / ".dvc/cache").rglob("*")) == cache

    capsys.readouterr()
    assert call("clean", "--yes") == 0
    assert (
        capsys.readouterr().out == "nothing to remove: everything belongs to a stage of dvc.yaml\n"
    )

    toy.set("ab", 0.0)  # it is restored, not run again
    toy.forget_events()
    assert toy.run("dvc", "repro", "-q").returncode == 0
    assert (toy.folder / "data/results/b").exists() and toy.events() == {}
