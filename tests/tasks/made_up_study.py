"""Plausible made-up results: everything that the report reads, in a folder."""

import contextlib
import io
import json
import shutil

import numpy
import pandas
import pytest
from ruamel.yaml import YAML

from hemotune.settings.params import Params
from hemotune.settings.reading import read_params, read_profile
from hemotune.settings.split import Split
from hemotune.settings.training import Training
from hemotune.settings.trainings import parse
from hemotune.splits import suffix_of_cut
from hemotune.training.records import Metrics, Scores
from tasks.report import __main__ as report
from tasks.report.results import FinishedRun, summaries_of
from tasks.report.runs import runs_of
from tests.conftest import ROOT
from tests.hemotune.drawn_predictions import table_of

CLASSES = ["EOSINOPHIL", "LYMPHOCYTE", "MONOCYTE", "NEUTROPHIL"]
ACCURACIES = {
    "random": [0.95, 0.99, 0.96, 0.72, 0.55, 0.94, 0.97],
    "held-out": [0.80, 0.83, 0.81, 0.61, 0.42, 0.79, 0.82],
}
EPOCHS = 12
COPIES = 4  # images of one photograph
SOURCE = {"source": "sample", "reference": "drawn", "version": None}
PARAMS = """\
profile: sample
backbones: [ResNet50]
trainings: [random-1, held-out-1]
experiments:
  mn_resultset1: {layers: 1, units: 8, learning_rate: 1.0e-5}
  mn_resultset2: {layers: 1, units: 16, learning_rate: 1.0e-5}
  mn_resultset3: {layers: 1, units: 32, learning_rate: 1.0e-5}
  mn_resultset4: {layers: 2, units: 8, learning_rate: 1.0e-5}
  mn_resultset5: {layers: 3, units: 8, learning_rate: 1.0e-5}
  mn_resultset6: {layers: 1, units: 8, learning_rate: 5.0e-5}
  mn_resultset7: {layers: 1, units: 8, learning_rate: 1.0e-4}
"""


def write_study(
    root, params=PARAMS, photographs=60, classes=CLASSES, source=SOURCE, own_test=True, **sections
):
    """Make up everything that the report reads, below the folder `root`.

    Args:
        classes: names that begin with different letters.
        source: what data/raw/source.json has of the images' source.
        own_test: whether the images lie in TRAIN and TEST.
        sections: of the profile, in place of the sample's; None removes one.
    """
    shutil.copytree(ROOT / "profiles", root / "profiles")
    (root / "params.yaml").write_text(params)
    profile = root / f"profiles/{read_params('profile', str, root)}.yaml"
    if not profile.exists():
        shutil.copy(root / "profiles/sample.yaml", profile)
    change_profile(profile, sections)
    for folder in ("data/raw", "data/splits", "reports/validation"):
        (root / folder).mkdir(parents=True)
    random = numpy.random.default_rng(7)
    folders = ("TRAIN", "TEST") if own_test else ("ALL", "ALL")
    rows = [
        {
            "path": f"{folders[p >= 0.8 * photographs]}/{name}/_{p}_{copy}.jpeg",
            "class": name,
            "photograph": f"{name[0]}{p}",
        }
        for name in classes
        for p in range(photographs)
        for copy in range(COPIES)
    ]
    inventory = pandas.DataFrame(rows).sort_values("path", ignore_index=True)
    inventory["split"] = inventory["path"].str.split("/").str[0]
    inventory["width"], inventory["height"], inventory["mode"] = 320, 240, "RGB"
    inventory["brightness"] = 180.0
    inventory.drop(columns="photograph").to_parquet(root / "data/inventory.parquet")
    inventory[["path", "photograph"]].assign(method="matched").to_parquet(
        root / "data/photographs.parquet"
    )
    numpy.save(
        root / "data/images.npy",
        random.integers(0, 255, (len(inventory), 32, 32, 3), dtype=numpy.uint8),
    )
    mixed = numpy.random.default_rng(8).permutation(len(inventory))
    number = inventory["photograph"].str[1:].astype(int)
    tested = number >= 0.8 * photographs
    params, split = read_params("", Params, root), read_profile("split", Split, root)
    folds = split.folds
    splits = {"random": cut(random.permutation(len(inventory)))}
    splits |= {
        f"random, cut {number}": cut(numpy.random.default_rng(number).permutation(len(inventory)))
        for number in range(2, split.repeats + 1)
    }
    splits["held-out"] = cut(mixed[numpy.argsort(tested[mixed], kind="stable")])
    splits |= {f"fold-{k}": cut_fold(number.to_numpy(), k, folds) for k in range(1, folds + 1)}
    for entry in params.trainings:
        training = parse(entry)
        named = training.protocol + suffix_of_cut(split.cut(training.repeat))
        parts = {name: [int(row) for row in part] for name, part in splits[named].items()}
        write_json(
            root / f"data/splits/{entry}.json",
            {
                "protocol": training.protocol,
                "repeat": training.repeat,
                "cut": split.cut(training.repeat),
                "folds": folds if training.fold else None,
                "own_test": own_test and training.protocol == "held-out",
                "seed": 1,
                "classes": classes,
                **parts,
            },
        )
    counted = {"images": len(inventory), "photographs": 240, "sha256": "ab" * 32, "ignored": 0}
    write_json(root / "data/raw/source.json", source | counted)
    rules = [
        rule("unreadable", "error", "every image can be decoded", True),
        rule(
            "duplicate_within",
            "warning",
            "no two images have the same bytes",
            False,
            [f"{folders[1]}/{classes[0]}/_1_1.jpeg"] * 2,
        ),
        rule("imbalance", "off", "classes are of similar size", True),
    ]
    write_json(
        root / "reports/validation/result.json",
        {"verdict": "warnings", "rules": rules, "great_expectations": {}},
    )
    names = list(params.experiments)
    training = read_profile("training", Training, root)
    for number, run in enumerate(runs_of(params, split, training)):
        accuracy = ACCURACIES["held-out" if run.fold else run.protocol][
            names.index(run.experiment) % 7
        ]
        rows = splits[run.protocol + suffix_of_cut(run.cut)]
        write_run(root, run, number, accuracy, inventory, rows, random, classes)


def change_profile(profile, sections):
    """Put `sections` into a profile, and the epochs of the made-up trainings."""
    values = YAML(typ="safe").load(profile.read_text()) | sections
    values = {name: section for name, section in values.items() if section is not None}
    values["training"]["epochs"] = EPOCHS
    YAML(typ="safe").dump(values, profile)


def some(experiments, trainings, backbones="[ResNet50]"):
    """Return PARAMS with these axes and the first `experiments` experiments."""
    lines = (
        PARAMS.replace("[random-1, held-out-1]", trainings)
        .replace("[ResNet50]", backbones)
        .splitlines()
    )
    return "\n".join(lines[: 4 + experiments]) + "\n"


def cut(order):
    """Cut a permutation of all images into 64/16/20 per cent."""
    a, b = round(0.64 * len(order)), round(0.80 * len(order))
    return {"train": order[:a], "validation": order[a:b], "test": order[b:]}


def cut_fold(photographs, fold, folds):
    """Cut so that a photograph in `folds` is tested, and one in `folds` of the rest validated."""
    test = photographs % folds == fold - 1
    validation = ~test & (photographs // folds % folds == 0)
    return {
        "train": numpy.flatnonzero(~test & ~validation),
        "validation": numpy.flatnonzero(validation),
        "test": numpy.flatnonzero(test),
    }


def rule(name, severity, description, passed, offenders=()):
    found = {
        "expected": "none",
        "found": str(len(offenders)),
        "count": len(offenders),
        "offenders": list(offenders),
    }
    return {
        "rule": name,
        "severity": severity,
        "description": description,
        "passed": passed,
        **found,
    }


def write_json(path, value):
    path.write_text(json.dumps(value))


def write_run(root, run, number, accuracy, inventory, split, random, classes):
    folder = root / "data/results" / run.key
    folder.mkdir(parents=True)
    frames = []
    for part in ("validation", "test"):
        frame = inventory.iloc[split[part]]
        truth = frame["class"].map(classes.index).to_numpy()
        # Photographs are hard or easy as a whole, so that copies err together.
        hard = {name: random.random() for name in sorted(set(frame["photograph"]))}
        wrong = frame["photograph"].map(hard).to_numpy() > accuracy
        predicted = numpy.where(wrong, (truth + random.integers(1, 4, len(truth))) % 4, truth)
        probabilities = random.dirichlet([1.0] * 4, len(truth)) * 0.3
        probabilities[numpy.arange(len(truth)), predicted] += 0.7
        frame = pandas.DataFrame(
            {"path": frame["path"].to_numpy(), "split": part, "truth": frame["class"].to_numpy()}
        )
        frames.append(
            frame.assign(
                **{
                    f"probability_{name}": probabilities[:, i].astype("float32")
                    for i, name in enumerate(classes)
                }
            )
        )
    frames[0] = frames[0].assign(
        **others_of(frames[0], run, classes, numpy.random.default_rng(number))
    )
    pandas.concat(frames).to_parquet(folder / "predictions.parquet")
    epochs = numpy.arange(1, run.epochs + 1)
    rise = 1 - numpy.exp(-epochs / 3)
    history = {
        "epoch": epochs,
        "loss": 1.5 - 0.9 * rise * accuracy,
        "accuracy": 0.25 + (accuracy - 0.35) * rise,
        "validation_loss": 1.4 - 1.2 * rise * accuracy,
        "validation_accuracy": 0.25 + (accuracy - 0.25) * rise,
        "seconds": 5.0,
        "images_per_second": 120.0,
    }
    pandas.DataFrame(history).to_csv(folder / "history.csv", index=False)
    figures = {"train": {"loss": 0.5, "accuracy": accuracy - 0.1, "images": len(split["train"])}}
    for part, frame in zip(("validation", "test"), frames, strict=True):
        probability = frame[[f"probability_{name}" for name in classes]].to_numpy()
        right = float((numpy.array(classes)[probability.argmax(1)] == frame["truth"]).mean())
        figures[part] = {"loss": 0.4, "accuracy": right, "images": len(frame)}
    factors = {name: value for name, value in vars(run).items() if name in Metrics.model_fields}
    rest = {
        "health": health_of(run, frames[0], figures),
        "learning_rate_applied": run.learning_rate * 10,
        "learning_time_seconds": 60.0 + 1.234567 * number,
        "parameters": 23_600_000,
        "images_per_second": 101.5,
        "device": "cpu",
        "processor": "Made-up 9000",
        "threads": 2,
        "precision": "float32",
        "versions": {"python": "3.11.9", "keras": "3.10.0", "tensorflow": "2.19.0"},
        "seed": 2,
    }
    write_json(folder / "metrics.json", factors | figures | rest)
    write_model(root / "data/models" / run.key, len(split["train"]) + len(split["validation"]))


def write_model(folder, images):
    """Write what stands for a model; all images are described by the same numbers."""
    folder.mkdir(parents=True)
    (folder / "model.keras").write_text(folder.name)
    write_json(folder / "model.json", {})
    numpy.save(folder / "features.npy", numpy.full((images, 4), 0.5, numpy.float16))


def others_of(validation, run, classes, random):
    """Return the classes predicted for the validation images under other averages and after each of
    the last five epochs: those of the last epoch, but for some images.
    """
    names = numpy.array(classes)
    last = validation[[f"probability_{name}" for name in classes]].to_numpy().argmax(axis=1)

    def but_for(share):
        other = random.integers(len(names), size=len(last))
        return names[numpy.where(random.random(len(last)) < share, other, last)]

    epochs = {f"epoch_{epoch}": but_for(0.02) for epoch in range(run.epochs - 4, run.epochs)}
    return {"other_averages": but_for(0.005), **epochs, f"epoch_{run.epochs}": names[last]}


def health_of(run, validation, figures):
    """Return what a sound training did."""

    def right(column):
        return float((validation[column] == validation["truth"]).mean())

    delivered = figures["validation"]
    deliveries = [
        {"keep": keep, "averages": averages, "epoch": epoch, "validation": delivered}
        for keep, epoch in (("last", run.epochs), ("best", run.epochs - 1))
        for averages in ("as_trained", "recomputed")
    ]
    return {
        "hidden": [
            {"name": f"dense_{layer}", "units": run.units, "dead": 1} for layer in range(run.layers)
        ],
        "train": figures["train"] | {"accuracy": figures["train"]["accuracy"] + 0.05},
        "fit_accuracy": figures["train"]["accuracy"],
        "deliveries": deliveries,
        "delivered_epoch": run.epochs,
        "last_epochs": [right(f"epoch_{epoch}") for epoch in range(run.epochs - 4, run.epochs + 1)],
        "other_averages": delivered | {"accuracy": right("other_averages")},
    }


def control(histogram, shared, not_found=0):
    """Return an entry of data/controls.json; `shared` None where photographs are unknown."""
    accuracies = {
        "majority_class": 0.25,
        "nearest_histogram": histogram,
        "nearest_thumbnail": histogram - 0.1,
    }
    entry = {
        name: {"accuracy": accuracy, "images": 192, "train_images": 614}
        for name, accuracy in accuracies.items()
    }
    known = {"share": shared, "images": 192, "not_found": not_found, "validation_share": shared}
    return entry | {"shared_photographs": None if shared is None else known}


def report_here(root, *arguments):
    """Run the stage's main in this process: loading the libraries takes half the time. Return exit
    status and output.
    """
    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        patch.chdir(root)
        status = report.main(*arguments)
    return status, printed.getvalue()


def run_of(
    judged=None,
    name="narrow",
    test=0.5,
    validation=(0.5, 0.4),
    seconds=60.0,
    problems=(),
    **experiment,
):
    """A run with these test accuracy, validation accuracy and loss, learning time and factors."""
    metrics = Metrics.model_construct(
        validation=Scores(accuracy=validation[0], loss=validation[1], images=40),
        test=Scores(accuracy=test, loss=0.4, images=40),
        learning_time_seconds=seconds,
    )
    of = {"protocol": "random", "backbone": "ResNet50", "layers": 1, "units": 8}
    of = of | {"learning_rate": 1e-5, "fold": None, "repeat": 1, "cut": 1} | experiment
    training = f"{of['protocol']}-{of['repeat']}"
    return FinishedRun(
        experiment=name,
        key=f"{name}-{of['backbone']}-{training}",
        training=training,
        pooled="5 folds" if of["fold"] else of["protocol"],
        metrics=metrics,
        history=None,
        validation=judged,
        judged=judged,
        problems=problems,
        **of,
    )


def summary_of(accuracy, name="narrow", photographs=40, **run):
    """A summary of one run that got the share `accuracy` of the photographs of two classes
    right.
    """
    right = [place < photographs * accuracy for place in range(photographs)]
    judged = table_of(right, [f"p{place}" for place in range(photographs)])
    (summary,) = summaries_of([run_of(judged, name, accuracy, **run)])
    return summary
