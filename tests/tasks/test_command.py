"""The command line that all stages have: help, wrong arguments, missing inputs."""

import pytest

from tests.conftest import ROOT, python
from tests.test_dependencies import STAGES

ARGUMENTS = {"backbone": ["MobileNet"], "finetune": ["narrow", "MobileNet", "random-1"]}
# What no experiment, protocol or backbone needs: the drawn data set, and weights.
NEEDS_NOTHING = {"download", "backbone"}


@pytest.fixture(scope="module")
def no_keras(tmp_path_factory):
    """A folder that is no checkout, in which importing Keras or TensorFlow is an error."""
    folder = tmp_path_factory.mktemp("no_keras")
    for name in ("keras", "tensorflow"):
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name} was imported')")
    return folder


def stage(name, *arguments, folder):
    """Run a stage of this code in a folder, where modules of the folder come first."""
    done = python(f"tasks.{name}", *arguments, cwd=folder, PYTHONPATH=f"{folder}:{ROOT}")
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", STAGES)
def test_help_runs_nothing_and_loads_no_keras(no_keras, name):
    files = set(no_keras.rglob("*"))
    code, output, errors = stage(name, "--help", folder=no_keras)
    assert (code, errors) == (0, "")
    assert output.startswith(f"usage: python -m tasks.{name} [-h]")
    assert set(no_keras.rglob("*")) == files


@pytest.mark.parametrize("name", STAGES)
def test_wrong_arguments_are_one_line(no_keras, name):
    cases = [[*ARGUMENTS.get(name, []), "--no-such-option"], [*ARGUMENTS.get(name, []), "extra"]]
    cases += [ARGUMENTS[name][:-1]] if name in ARGUMENTS else []
    for arguments in cases:
        code, output, errors = stage(name, *arguments, folder=no_keras)
        assert (code, output, errors.count("\n")) == (1, "", 1)
        assert errors.startswith("error: ")
        assert errors.endswith(f"; see python -m tasks.{name} --help\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STAGES if name not in NEEDS_NOTHING])
def test_missing_inputs_are_one_line(workspace, name):
    code, output, errors = stage(name, *ARGUMENTS.get(name, []), folder=workspace)
    assert (code, output, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("error: data/")
    assert "`dvc repro" in errors or "run prepare first" in errors


@pytest.mark.slow
def test_a_backbone_that_does_not_exist_is_one_line(workspace):
    code, _, errors = stage("backbone", "ResNet51", folder=workspace)
    assert (code, errors.count("\n")) == (1, 1)
    assert errors.startswith("error: ") and "ResNet51" in errors
