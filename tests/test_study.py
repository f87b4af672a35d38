"""One tiny study from end to end, and everything a user does with it afterwards."""

import ast
import itertools
import json
import re
import shutil
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

from tests.conftest import (
    ROOT,
    documented_model_code,
    make_nvidia_smi,
    make_repository,
    place_database,
    python,
    run,
)

KEYS = ["narrow-MobileNet-random-1", "deep-MobileNet-random-1"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository in which the flow has run the tiny study once; `repository.output` is what it
    printed.
    """
    folder = make_repository(tmp_path_factory.mktemp("study"))
    # A user's own defaults for Keras, which would break or change the study if they were followed.
    user = tmp_path_factory.mktemp("keras")
    defaults = {
        "floatx": "float16",
        "epsilon": 0.1,
        "image_data_format": "channels_first",
        "backend": "jax",
    }
    (user / "keras.json").write_text(json.dumps(defaults))
    # With as many threads as dvc repro
    result = python("flows.cli", "run", "--slots", "cpu", cwd=folder, KERAS_HOME=str(user))
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    (folder / ".study" / "output").write_text(result.stdout + result.stderr)
    return folder


def dvc(repository, *arguments):
    result = run([sys.executable, "-m", "dvc", *arguments], repository)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def copy_of(repository, other, *left_out):
    """Copy the repository with its results, without what a run leaves beside them."""
    ignored = shutil.ignore_patterns("tmp", ".study", "plots", *left_out)
    shutil.copytree(repository, other, symlinks=True, ignore=ignored)
    place_database(other / ".study/prefect")
    return other


def test_the_study_ends_with_the_table_and_where_the_report_lies(repository):
    output = (repository / ".study" / "output").read_text()
    assert "narrow" in output and "deep" in output
    assert "reports/study.md" in output
    results = pd.read_csv(repository / "reports" / "results.csv")
    assert results["experiment"].tolist() == ["narrow", "deep"]


@pytest.mark.parametrize("key", KEYS)
def test_a_fine_tune_writes_what_it_measured(repository, key):
    results = repository / "data" / "results" / key
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["pretraining"] == {name: metrics[name] for name in ("precision", "versions")}
    history = pd.read_csv(results / "history.csv")
    predictions = pd.read_parquet(results / "predictions.parquet")
    split = json.loads((repository / "data" / "splits" / "random-1.json").read_text())

    assert history["epoch"].tolist() == [1, 2]
    assert metrics["train"]["loss"] == pytest.approx(history["loss"].iloc[-1], rel=1e-4)
    assert metrics["learning_time_seconds"] == pytest.approx(history["seconds"].sum(), rel=1e-4)
    written = {1e-5: 3e-4, 1e-4: 3e-3}  # 30 * 1e-5 is 0.00030000000000000003
    assert metrics["learning_rate_applied"] == written[metrics["learning_rate"]]
    # The weights and what HDF5 adds; nothing of the optimizer, which is twice as large.
    weights = 4 * metrics["parameters"]
    assert (
        weights
        < (repository / "data" / "models" / key / "model.keras").stat().st_size
        < 1.1 * weights
    )

    columns = [f"probability_{name}" for name in split["classes"]]
    np.testing.assert_allclose(predictions[columns].sum(axis=1), 1, atol=1e-5)
    for part in ("validation", "test"):
        rows = predictions[predictions["split"] == part]
        assert len(rows) == len(split[part]) == metrics[part]["images"]
        chosen = rows[columns].to_numpy().argmax(axis=1)
        accuracy = (np.array(split["classes"])[chosen] == rows["truth"]).mean()
        assert metrics[part]["accuracy"] == pytest.approx(accuracy)
    # The delivered model computes in float32, where an image may change sides.
    images = 0 if metrics["precision"] == "float32" else 2
    tolerance = 1e-4 + images / metrics["validation"]["images"]
    assert metrics["validation"]["accuracy"] == pytest.approx(
        history["validation_accuracy"].iloc[-1], abs=tolerance
    )

    health = metrics["health"]
    assert health["last_epochs"] == pytest.approx(history["validation_accuracy"].tolist(), 1e-5)
    assert [layer["name"] for layer in health["hidden"]] == [
        f"hidden_{n}" for n in range(1, metrics["layers"] + 1)
    ]
    choices = {(it["keep"], it["averages"]) for it in health["deliveries"]}
    assert choices == set(itertools.product(("last", "best"), ("as_trained", "recomputed")))
    validation, test = (predictions[predictions["split"] == s] for s in ("validation", "test"))
    extra = {
        "other_averages": health["other_averages"]["accuracy"],
        "epoch_1": health["last_epochs"][0],
        "epoch_2": health["last_epochs"][1],
    }
    for column, accuracy in extra.items():
        assert (validation[column] == validation["truth"]).mean() == pytest.approx(accuracy)
        assert test[column].isna().all()


def test_a_model_is_used_as_documented_with_keras_and_pillow_alone(repository, tmp_path):
    """Its probabilities are the recorded ones; `python -I` in a folder of its own sees nothing of
    this project.
    """
    for name in ("model.keras", "model.json"):
        shutil.copy(repository / "data" / "models" / KEYS[0] / name, tmp_path)
    recorded = pd.read_parquet(
        repository / "data" / "results" / KEYS[0] / "predictions.parquet"
    ).set_index("path")
    files = [str(repository / "data" / "raw" / "images" / path) for path in recorded.index]
    shutil.copy(files[0], tmp_path / "cell.jpeg")
    several = (
        "np.save('all.npy', model.predict(np.stack([read(path, about['image']) for path in"
        f" {files}])))"
    )
    done = run([sys.executable, "-I", "-c", f"{documented_model_code()}\n{several}"], tmp_path)
    assert done.returncode == 0, done.stderr
    first = ast.literal_eval(re.search(r"^{.*}$", done.stdout, re.MULTILINE)[0])
    expected = recorded[[f"probability_{name}" for name in first]]
    assert expected.std().max() > 0.02  # else any image would do
    np.testing.assert_allclose(list(first.values()), expected.iloc[0], atol=1e-3)
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), expected, atol=1e-3)


def test_nothing_is_left_over(repository):
    assert not list((repository / "data").rglob("*.partial*"))
    assert not (repository / ".study" / "resume").exists() or not any(
        (repository / ".study" / "resume").rglob("*.npz")
    )
    assert run(["git", "status", "--porcelain"], repository).stdout.split() in (
        [],
        ["??", "dvc.lock"],
    )


def test_dvc_has_nothing_to_do_after_the_flow(repository):
    lock = (repository / "dvc.lock").read_bytes()
    assert "Data and pipelines are up to date" in dvc(repository, "repro")
    assert (repository / "dvc.lock").read_bytes() == lock


def test_a_second_run_ends_at_once_and_says_so(repository):
    before = (repository / "reports" / "study.md").stat().st_mtime_ns
    result = python("flows.cli", "run", cwd=repository)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "nothing" in (result.stdout + result.stderr).lower()
    assert (repository / "reports" / "study.md").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "units: 4",
            "units: 0",
            "experiments.narrow.units: Input should be greater than or equal to 1 (given: 0)",
        ),
        # DVC itself stumbles over it
        (
            "trainings: [random-1]",
            "trainings: 3",
            "trainings: Input should be a valid list (given: 3)",
        ),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_runs(repository, old, new, problem):
    params = repository / "params.yaml"
    text = params.read_text()
    assert old in text
    params.write_text(text.replace(old, new))
    try:
        result = python("flows.cli", "run", cwd=repository)
    finally:
        params.write_text(text)
    assert (result.returncode, result.stdout, result.stderr) == (
        1,
        "",
        f"error: params.yaml: {problem}\n",
    )


def would_run(repository, change):
    """The stages that `dvc repro` would run with params.yaml so changed."""
    params = repository / "params.yaml"
    text = params.read_text()
    try:
        params.write_text(change(text))
        status = json.loads(dvc(repository, "status", "--json"))
    finally:
        params.write_text(text)
    return sorted(status)


def test_changing_one_experiment_retrains_that_one_alone(repository):
    stages = would_run(repository, lambda text: text.replace("units: 4", "units: 5"))
    assert stages == ["finetune@narrow-MobileNet-random-1", "report"]


def test_adding_an_experiment_is_one_line(repository):
    stages = would_run(
        repository, lambda text: text + "  wide: {layers: 1, units: 32, learning_rate: 1.0e-5}\n"
    )
    assert stages == ["finetune@wide-MobileNet-random-1", "report"]


def test_dvc_shows_metrics_and_plots(repository):
    metrics = json.loads(dvc(repository, "metrics", "show", "--json"))
    files = metrics[""]["data"]
    assert sorted(files) == sorted(f"data/results/{key}/metrics.json" for key in KEYS)
    dvc(repository, "plots", "show", "-o", str(repository / "plots"))
    page = (repository / "plots" / "index.html").read_text()
    assert all(key in page for key in KEYS)


def test_data_and_models_travel_through_a_remote(repository, tmp_path):
    """Another checkout gets everything by `dvc pull`, and has nothing to do."""
    run(
        [
            sys.executable,
            "-m",
            "dvc",
            "remote",
            "add",
            "--local",
            "-d",
            "store",
            str(tmp_path / "store"),
        ],
        repository,
    )
    dvc(repository, "push")
    other = copy_of(repository, tmp_path / "other", "cache", "data", "reports")
    dvc(other, "pull")
    assert (other / "reports" / "results.csv").read_bytes() == (
        repository / "reports" / "results.csv"
    ).read_bytes()
    assert "Data and pipelines are up to date" in dvc(other, "repro")


def test_the_best_model_predicts_as_recorded_here_and_in_another_clone(repository, tmp_path):
    """`hemotune predict` in a fresh process: the recorded probabilities, and a row for a broken
    file; the same from the remote alone, by `dvc artifacts get`.
    """
    use = json.loads((repository / "data/models/best/use.json").read_text())
    recorded = pd.read_parquet(repository / f"data/results/{use['key']}/predictions.parquet")
    test = recorded[recorded["split"] == "test"].set_index("path").iloc[:8]
    files = [path.replace("/", "-") for path in test.index]
    images = tmp_path / "images"
    images.mkdir()
    for path, name in zip(test.index, files, strict=True):
        shutil.copy(repository / "data/raw/images" / path, images / name)
    (images / "broken.png").write_text("no image")

    def predict(folder, *arguments):
        done = python("flows.cli", "predict", str(images), "--json", *arguments, cwd=folder)
        assert done.returncode == 3, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    answers, notes = predict(repository, "--explain", tmp_path / "heat")
    text = (repository / "reports/study.md").read_text()
    by_name = {answer["image"]: answer for answer in answers}
    assert by_name.pop("broken.png")["error"].startswith("is not a JPEG")
    assert sorted(by_name) == sorted(files)
    own, calibrated = (
        pd.DataFrame([by_name[name][kind] for name in files]).to_numpy()
        for kind in ("uncalibrated", "probabilities")
    )
    columns = [column for column in test if column.startswith("probability_")]
    np.testing.assert_allclose(own, test[columns].to_numpy(), atol=1e-3)
    powers = own ** (1 / use["calibration"]["temperature"])
    powers /= powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibrated, powers, atol=1e-4)
    train = json.loads((repository / "data/splits/random-1.json").read_text())["train"]
    inventory = pd.read_parquet(repository / "data/inventory.parquet")
    near = {name for answer in by_name.values() for name in answer["nearest"]}
    assert near <= set(inventory["path"].iloc[train]) and len(near) > 3
    assert "no sets that hold the truth: images of one group are in training" in notes
    unsound = f"its training is unsound: {'; '.join(use['unsound'])}\n"
    assert (unsound in notes) == bool(use["unsound"]) == ("**Its training is unsound:**" in text)
    assert "1 of 9 files could not be read" in notes and "[100%] predict 9/9" in notes
    assert "set" not in answers[0] and "unsure" not in answers[0]
    assert sorted(path.name for path in (tmp_path / "heat").iterdir()) == sorted(
        f"{name}.png" for name in files
    )
    assert f"`data/models/best` holds `{use['key']}`" in text
    assert "nothing to remove" in python("flows.cli", "clean", "--yes", cwd=repository).stdout

    published, store = copy_of(repository, tmp_path / "published"), str(tmp_path / "store")
    dvc(published, "remote", "add", "-d", "store", store)
    tag = ["tag", "-a", "best@v1.0.0", "-m", "The first"]
    for command in (["add", "-A"], ["commit", "-qm", "Results"], tag):
        run(["git", *command], published)
    dvc(published, "push", "data/models/best")
    shutil.rmtree(published / ".dvc/cache")
    clone = tmp_path / "clone"
    run(["git", "clone", "-q", str(published), str(clone)], tmp_path)
    where = ["--rev", "v1.0.0", "-o", "data/models/best"]
    dvc(clone, "artifacts", "get", str(published), "best", *where)
    assert predict(clone)[0] == answers


def test_the_same_seed_gives_the_same_results(repository, tmp_path):
    """Trained again, the results are the same bytes; only the times are not."""
    other = copy_of(repository, tmp_path / "other")
    dvc(other, "repro", "--force", "--single-item", f"finetune@{KEYS[0]}")
    dvc(other, "repro", "report")
    reports, again = repository / "reports", other / "reports"
    assert (again / "results.csv").read_bytes() == (reports / "results.csv").read_bytes()
    assert (again / "times.csv").read_bytes() != (reports / "times.csv").read_bytes()


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="TensorFlow may see a GPU")
def test_a_gpu_that_tensorflow_cannot_use_stops_the_study(repository, tmp_path):
    """On a machine with a GPU and without CUDA libraries nothing is trained on the processor unless
    asked for.
    """
    other = copy_of(repository, tmp_path / "other")
    driver = {"PATH": make_nvidia_smi(tmp_path, "echo 0"), "CUDA_VISIBLE_DEVICES": None}
    profile = other / "profiles" / "tiny.yaml"
    profile.write_text(profile.read_text().replace("seed: 1001", "seed: 1002"))
    done = run([sys.executable, "-m", "flows.cli", "run", "--slots", "auto"], other, **driver)
    output = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in output, output
    lines = (line.partition("error: ")[2] for line in output.splitlines())
    (message,) = {line for line in lines if line.startswith("TensorFlow")}
    assert message.startswith("TensorFlow sees none of the GPUs that it may use (0). It reports")
    assert "Could not load dynamic library 'libcuda.so.1'" in message
    install, *cpu = re.search(
        r"install the CUDA libraries: (.*) \(.*(--slots cpu) or set (.*)", message
    ).groups()
    assert all(text in (ROOT / "docs/gpus.md").read_text() for text in (install, *cpu))
    # Which DVC removed before it ran the stage
    assert not (other / "data/backbone/MobileNet").exists()


def test_an_experiment_sets_how_it_is_trained(repository, tmp_path):
    """It is recorded, and nothing of it is in the model."""
    other = copy_of(repository, tmp_path / "other", "cache")
    own = {
        "initialization": "centred",
        "freeze": "conv_pw_2",
        "augmentation": "turns",
        "warm_up": 0.5,
        "class_weights": "balanced",
        "keep": "best",
        "head": "average",
        "batch_size": 8,
    }
    params = (other / "params.yaml").read_text()
    text = ", ".join(f"{key}: {value}" for key, value in own.items())
    written = params.replace("units: 4,", f"units: 4, {text},")
    assert written != params
    (other / "params.yaml").write_text(written)
    done = python("tasks.finetune", *KEYS[0].split("-", 2), cwd=other)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((other / "data/results" / KEYS[0] / "metrics.json").read_text())
    assert own == {name: metrics[name] for name in own}
    assert metrics["dropout"] == 0.5 and metrics["batch_norm"] == "trained"
    with zipfile.ZipFile(other / "data/models" / KEYS[0] / "model.keras") as model:
        layers = json.loads(model.read("config.json"))["config"]["layers"]
    assert "global_average_pooling2d" in [layer["name"] for layer in layers]
    (backbone,) = (layer["config"] for layer in layers if "layers" in layer["config"])
    trainable = [layer["config"]["trainable"] for layer in backbone["layers"][1:]]
    assert len(trainable) > 80 and all(trainable) and backbone["trainable"]


def test_a_loss_that_explodes_stops_the_fine_tune_and_says_where(repository, tmp_path):
    other = copy_of(repository, tmp_path / "other", "cache")
    profile = other / "profiles" / "tiny.yaml"
    profile.write_text(
        profile.read_text().replace("learning_rate_scale: 30", "learning_rate_scale: 1.0e+5")
    )
    params = other / "params.yaml"
    params.write_text(
        params.read_text().replace(
            "units: 4, learning_rate: 1.0e-5", "units: 4, learning_rate: 0.9"
        )
    )
    before = (other / "data" / "results" / KEYS[0] / "metrics.json").read_bytes()
    done = python("tasks.finetune", *KEYS[0].split("-", 2), cwd=other)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (message,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"error: the loss is \S+ at epoch 1, step \d of 4, learning rate 90000: lower the"
        r" experiment's .*",
        message,
    )
    assert (
        json.loads((other / ".study/failures" / f"{KEYS[0]}.json").read_text())["reason"] in message
    )
    assert (other / "data" / "results" / KEYS[0] / "metrics.json").read_bytes() == before
    assert not list((other / "data").rglob("*.partial*"))
