"""params.yaml and the profiles: what is refused, and that the message names the key and what is
allowed.
"""

import json

import pytest
from ruamel.yaml import YAML

from hemotune.errors import StudyError
from hemotune.settings.__main__ import check
from hemotune.settings.experiment import Experiment, training_of
from hemotune.settings.params import Params
from hemotune.settings.profile import Profile
from hemotune.settings.reading import read, read_params
from hemotune.settings.training import Training
from tests.conftest import ROOT, TINY_PARAMS, TINY_PROFILE, python


@pytest.mark.parametrize("profile", ["sample", "kaggle", "kaggle-64"])
def test_shipped_profiles_are_valid(profile):
    read(ROOT / "profiles" / f"{profile}.yaml", "", Profile)


def test_an_experiment_sets_what_the_profile_leaves():
    profile = Training(epochs=3, dropout=0.2)
    own = Experiment(layers=1, units=8, learning_rate=1e-5, freeze="backbone", epochs=5)
    found = training_of("frozen", own, profile)
    assert (found.epochs, found.dropout, found.freeze) == (5, 0.2, "backbone")
    row = Experiment(layers=1, units=8, learning_rate=1e-5)
    assert training_of("row", row, profile) == profile


def test_params_hold_the_seven_experiments_of_the_study():
    experiments = read_params("", Params, ROOT).experiments
    assert [(e.layers, e.units, e.learning_rate) for e in experiments.values()] == [
        (1, 8, 1e-5),
        (1, 16, 1e-5),
        (1, 32, 1e-5),
        (2, 8, 1e-5),
        (3, 8, 1e-5),
        (1, 8, 5e-5),
        (1, 8, 1e-4),
    ]


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
        (
            "profiles/tiny.yaml",
            "report: {difference: 2.0}\n",
            "",
            "tiny.yaml: report: missing; add `report: {}`, which takes the defaults",
        ),
        (
            "profiles/tiny.yaml",
            "report:",
            "study: {unit: 'two\\nlines'}\nreport:",
            "tiny.yaml: study.unit: String should match pattern",
        ),
        (
            "params.yaml",
            "units: 4",
            "units: 0",
            "experiments.narrow.units: Input should be greater than or equal to 1 (given: 0)",
        ),
        (
            "params.yaml",
            "units: 4",
            "unit: 4",
            "experiments.narrow.unit: unknown key; allowed here: layers, units, learning_rate",
        ),
        (
            "params.yaml",
            "units: 4",
            "units: 4, warm_up: 3",
            "experiments.narrow: warm_up is 3 of 2 epochs, so that the learning rate is never",
        ),
        (
            "params.yaml",
            "units: 4",
            "units: 4, freeze: backbone, batch_norm: frozen",
            "experiments.narrow.batch_norm: with freeze: backbone nothing is left for it to change",
        ),
        (
            "params.yaml",
            "units: 4",
            "units: 4, keep: best, epochs: 1",
            "experiments.narrow.keep: of 1 epoch the best is the last: remove it",
        ),
        (
            "params.yaml",
            "units: 4",
            "units: 4, augmentation: mixup",
            "experiments.narrow.augmentation: Input should be 'none', 'flips' or 'turns'",
        ),
        (
            "params.yaml",
            "units: 4",
            "units: '4'",
            "experiments.narrow.units: Input should be a valid integer",
        ),
        (
            "params.yaml",
            "learning_rate: 1.0e-5",
            "learning_rate: -1.0e-5",
            "experiments.narrow.learning_rate: Input should be greater than 0",
        ),
        (
            "params.yaml",
            "[random-1]",
            "[random-1, public-1]",
            "trainings.1: should be PROTOCOL-REPEAT, such as random-1, held-out-2 or fold-1-1",
        ),
        (
            "params.yaml",
            "[random-1]",
            "[random-1, random-1]",
            "trainings: each value may be listed once",
        ),
        (
            "params.yaml",
            "trainings: [random-1]",
            "protocols: [published, held-out]\nrepeats: [1, 2]",
            "params.yaml: protocols and repeats are now one list; put in their place: trainings:"
            " [random-1, random-2, held-out-1, held-out-2]",
        ),
        ("params.yaml", "narrow:", "nar-row:", "experiments.nar-row"),
        (
            "profiles/tiny.yaml",
            "test: 0.20",
            "test: 0.40",
            "split: train + validation + test is 120%; it must be 100%",
        ),
        (
            "profiles/tiny.yaml",
            "epochs: 2",
            "epoch: 2",
            "training.epoch: unknown key; allowed here: epochs, batch_size",
        ),
        (
            "profiles/tiny.yaml",
            "precision: auto",
            "precision: half",
            "training.precision: Input should be 'auto'",
        ),
        (
            "profiles/tiny.yaml",
            "source: sample",
            "source: archive",
            "dataset: source 'archive' needs 'path'",
        ),
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
        check(workspace)
    assert expected in str(error.value)
    assert file.split("/")[-1] in str(error.value)


def numbers_below(schema, definitions, above=()):
    """Yield (path, JSON schema) of every number below a JSON schema; a list's items are at 0, a
    dictionary's values at `narrow`.
    """
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if schema.get("type") in ("integer", "number"):
        yield above, schema
    for key, value in schema.get("properties", {}).items():
        yield from numbers_below(value, definitions, (*above, key))
    for value in schema.get("patternProperties", {}).values():
        yield from numbers_below(value, definitions, (*above, "narrow"))
    for value in schema.get("anyOf", []):
        yield from numbers_below(value, definitions, above)
    if "items" in schema:
        yield from numbers_below(schema["items"], definitions, (*above, 0))


def all_numbers():
    """Yield (file, path, JSON schema) of every number that can be set."""
    for file, model in (("params.yaml", Params), ("profiles/tiny.yaml", Profile)):
        schema = model.model_json_schema()
        yield from ((file, path, number) for path, number in numbers_below(schema, schema["$defs"]))


NUMBERS = list(all_numbers())


def test_every_number_is_found_and_has_two_bounds():
    paths = {path for _, path, _ in NUMBERS}
    assert {
        ("split", "folds"),
        ("experiments", "narrow", "units"),
        ("dataset", "sample", "copies"),
        ("dataset", "version"),
    } <= paths
    for _, path, number in NUMBERS:
        assert {"minimum", "exclusiveMinimum"} & set(number), path
        assert {"maximum", "exclusiveMaximum"} & set(number), path


@pytest.mark.parametrize(
    ("file", "path"),
    [(file, path) for file, path, _ in NUMBERS],
    ids=[".".join(map(str, p)) for _, p, _ in NUMBERS],
)
def test_a_number_that_no_machine_can_bear_is_refused_by_name(tmp_path, file, path):
    (tmp_path / "profiles").mkdir()
    settings = {
        "params.yaml": YAML(typ="safe").load(TINY_PARAMS),
        "profiles/tiny.yaml": YAML(typ="safe").load(TINY_PROFILE),
    }
    place = settings[file]
    for key in path[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    for value in (float("inf"), float("nan"), -1, 10**10):
        place[path[-1]] = value
        for name, content in settings.items():
            (tmp_path / name).write_text(
                json.dumps(content).replace("Infinity", ".inf").replace("NaN", ".nan")
            )
        with pytest.raises(StudyError) as error:
            check(tmp_path)
        assert str(error.value).startswith(
            f"{file.split('/')[-1]}: {'.'.join(map(str, path))}: Input should be "
        ), value


def test_a_number_too_long_to_read_is_told_in_one_line(workspace):
    (workspace / "params.yaml").write_text(f"profile: tiny\ntrainings: [{'9' * 5000}]\n")
    with pytest.raises(StudyError, match="^params.yaml: not valid YAML: [^\n]*digits"):
        check(workspace)


def test_a_stage_with_wrong_settings_exits_with_one_line(workspace):
    (workspace / "params.yaml").write_text("profile: tiny\nexperiments: {}\n")
    result = python("tasks.prepare", cwd=workspace)
    assert result.returncode == 1
    assert result.stderr.startswith("error: params.yaml: trainings: missing")
    assert "Traceback" not in result.stderr
