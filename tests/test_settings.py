"""params.yaml and the profiles: what is refused, and that the message names the key and what is allowed."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks import settings
from tasks.errors import StudyError
from tests.conftest import ROOT, python


@pytest.mark.parametrize("profile", ["sample", "kaggle", "kaggle-64"])
def test_shipped_profiles_are_valid(profile):
    settings.read_section(ROOT / "profiles" / f"{profile}.yaml", settings.Profile)


def test_params_hold_the_seven_experiments_of_the_study():
    experiments = settings.load(ROOT).params.experiments
    assert [(e.layers, e.units, e.learning_rate) for e in experiments.values()] == [
        (1, 8, 1e-5), (1, 16, 1e-5), (1, 32, 1e-5), (2, 8, 1e-5), (3, 8, 1e-5), (1, 8, 5e-5), (1, 8, 1e-4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("params.yaml", "profile: tiny", "profile: [tiny", "params.yaml, line"),
        (
            "params.yaml",
            "profile: tiny",
            "profile: nowhere",
            "there is no profiles/nowhere.yaml; there is: kaggle, kaggle-64, sample, tiny",
        ),
        ("params.yaml", "units: 4", "units: 0", "experiments.narrow.units: Input should be greater than or equal to 1 (given: 0)"),
        ("params.yaml", "units: 4", "unit: 4", "experiments.narrow.unit: unknown key; allowed here: layers, units, learning_rate"),
        ("params.yaml", "units: 4", "units: '4'", "experiments.narrow.units: Input should be a valid integer"),
        (
            "params.yaml",
            "learning_rate: 1.0e-5",
            "learning_rate: -1.0e-5",
            "experiments.narrow.learning_rate: Input should be greater than 0",
        ),
        ("params.yaml", "[published]", "[public]", "protocols.0: Input should be 'published' or 'held-out' (given: 'public')"),
        ("params.yaml", "[published]", "[published, published]", "protocols: each value may be listed once"),
        ("params.yaml", "narrow:", "nar-row:", "experiments.nar-row"),
        ("profiles/tiny.yaml", "test: 0.20", "test: 0.40", "split: train + validation + test is 120%; it must be 100%"),
        ("profiles/tiny.yaml", "epochs: 2", "epoch: 2", "training.epoch: unknown key; allowed here: epochs, batch_size"),
        ("profiles/tiny.yaml", "precision: auto", "precision: half", "training.precision: Input should be 'auto'"),
        ("profiles/tiny.yaml", "source: sample", "source: archive", "dataset: source 'archive' needs 'path'"),
        (
            "profiles/tiny.yaml",
            "images: {size: 32}",
            "images: {size: 8}",
            "images.size: Input should be greater than or equal to 32 (given: 8)",
        ),
    ],
)
def test_wrong_settings_are_refused_by_name(workspace, file, old, new, expected):
    text = (workspace / file).read_text()
    assert old in text
    (workspace / file).write_text(text.replace(old, new))
    with pytest.raises(StudyError) as error:
        settings.load(workspace)
    assert expected in str(error.value)
    assert file.split("/")[-1] in str(error.value)


def test_a_stage_with_wrong_settings_exits_with_one_line(workspace):
    (workspace / "params.yaml").write_text("profile: tiny\nexperiments: {}\n")
    result = python("tasks.prepare", cwd=workspace)
    assert result.returncode == 1
    assert result.stderr.startswith("error: params.yaml: backbones: missing")
    assert "Traceback" not in result.stderr


def test_a_stage_depends_on_the_code_that_decides_its_result():
    """A module that a stage imports and does not depend on would leave its old result in place when it changes."""
    # Plumbing: it decides how a stage reads, waits and reports, not what it makes.
    plumbing = {"errors", "files", "progress", "settings", "resume", "hardware"}
    for name, stage in YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"].items():
        depends = {Path(dep).stem for dep in stage["deps"] if dep.startswith("tasks/")}
        lacking = imported(name) - depends - plumbing
        assert not lacking, f"{name}: add to its deps: {', '.join(sorted(lacking))}"


def imported(module):
    """Names of the modules of tasks/ that `module` loads, itself included, directly or through others."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in found or not (ROOT / "tasks" / name).with_suffix(".py").exists() and not (ROOT / "tasks" / name).is_dir():
            continue
        found.add(name)
        path = ROOT / "tasks" / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "tasks":
                    waiting += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tasks."):
                    waiting.append(node.module.split(".")[1])
    return found
