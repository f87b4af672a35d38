"""Read what the fine-tunes left, as far as the axes in params.yaml name it, into one sorted table:
a row a run.
"""

import itertools
from pathlib import Path

from hemotune.errors import StudyError
from hemotune.evaluation.predictions import judge
from hemotune.files import read_json
from tasks.report.markdown import duration, milliseconds, percent, rate
from tasks.report.software import software_of

SPLITS = ("train", "validation", "test")
# The factors of an experiment, in the order in which they are told: column of the table, phrase of
# a section's title, wording of a value.
FACTORS = {
    "layers": ("Hidden Layer", "the number of hidden layers", str),
    "units": ("Dense Count", "dense value", str),
    "learning_rate": ("Learning Rate", "learning rate value", rate),
}


# What two runs of the same thing on the same machine do not share; the rest of the table is the
# same bytes.
TIMES = ("learning_time_seconds", "learning_time", "learning_time_ms", "images_per_second")


def runs_of(params):
    """Return a list of dicts, one for each run that the axes of params.yaml name, sorted by
    protocol, backbone, experiment, repeat.

    Experiments, protocols and backbones keep the order in which params.yaml lists them.
    """
    axes = itertools.product(
        params.protocols, params.backbones, params.experiments.items(), params.repeats
    )
    return [
        {
            "key": f"{name}-{protocol}-{backbone}-{repeat}",
            "experiment": name,
            "protocol": protocol,
            "backbone": backbone,
            "repeat": repeat,
            "layers": experiment.layers,
            "units": experiment.units,
            "learning_rate": experiment.learning_rate,
        }
        for protocol, backbone, (name, experiment), repeat in axes
    ]


def read_runs(root, params, incomplete=False):
    """Return `runs_of(params)` with the figures of each run, its history and its predictions added.

    A run has "failed" (None, or the reason why it has no results), the keys of metrics.json
    flattened ("test_accuracy"), "history" (DataFrame, a row an epoch) and "judged" (the test
    images' predictions, see hemotune/evaluation/predictions.py).

    Args:
        root: the repository's top folder.
        params: settings.params.Params.
        incomplete: report a missing run as failed, with the reason; without it a missing run is an
            error.

    Raises:
        StudyError: a run is missing, belongs to other settings than params.yaml, or its predictions
            do not fit the split.
    """
    root = Path(root)
    images = {protocol: read_split(root, protocol) for protocol in params.protocols}
    photographs = read_photographs(root)
    runs = []
    for run in runs_of(params):
        folder = root / "data/results" / run["key"]
        missing = [
            name
            for name in ("metrics.json", "history.csv", "predictions.parquet")
            if not (folder / name).exists()
        ]
        if not missing:
            runs.append(read_run(folder, run, images[run["protocol"]], photographs))
            continue
        failure = root / ".study/failures" / f"{run['key']}.json"
        reason = " ".join(read_json(failure)["reason"].split()) if failure.exists() else None
        if not incomplete:
            raise StudyError(
                f"data/results/{run['key']}/{missing[0]} is missing"
                + (f" (the run failed: {reason})" if reason else "")
                + f": run `dvc repro finetune@{run['key']}`, or report what is there with `python"
                " -m tasks.report --incomplete`"
            )
        runs.append(run | {"failed": reason or "not run"})
    return runs


def read_run(folder, run, images, photographs):
    """Return `run` with what the three files in `folder` say.

    Args:
        folder: data/results/KEY.
        run: an entry of runs_of.
        images: what read_split returns for the run's protocol.
        photographs: DataFrame of path and photograph, or None where photographs are unknown.
    """
    import pandas

    metrics = read_json(folder / "metrics.json")
    for factor in FACTORS:
        if metrics[factor] != run[factor]:
            raise StudyError(
                f"data/results/{run['key']}/metrics.json: {factor} is {metrics[factor]}, but"
                f" params.yaml says {run[factor]} for {run['experiment']}: the results are older"
                " than params.yaml; run `dvc repro`"
            )
    try:
        predictions = pandas.read_parquet(folder / "predictions.parquet")
        judged = {
            part: judge_part(predictions, part, images, photographs, metrics)
            for part in ("validation", "test")
        }
    except (StudyError, OSError) as error:
        place = f"data/results/{run['key']}"
        raise StudyError(
            f"{place}/predictions.parquet: {error}; or delete {place} and run `dvc repro` to train"
            " it again"
        ) from None
    figures = {
        f"{split}_{name}": metrics[split][name]
        for split in SPLITS
        for name in ("loss", "accuracy", "images")
    }
    rest = {
        name: value for name, value in metrics.items() if name not in SPLITS and name not in run
    }
    history = pandas.read_csv(folder / "history.csv")
    return run | {"failed": None} | figures | rest | {"history": history, "judged": judged["test"]}


def judge_part(predictions, part, images, photographs, metrics):
    """Return the judged predictions of one part if they hold exactly its images, with their truth,
    and give the accuracy in `metrics`.
    """
    expected = images[images["split"] == part].set_index("path")["truth"].sort_index()
    judged = judge(predictions, part, list(expected.index), photographs)
    wrong = judged["truth"].astype(str) != expected.astype(str)
    if wrong.any():
        path = wrong.idxmax()
        raise StudyError(
            f"the truth of {path} is {judged['truth'][path]}, but {expected[path]} in"
            " data/inventory.parquet: run the study again"
        )
    accuracy, told = float(judged["correct"].mean()), metrics[part]["accuracy"]
    if abs(accuracy - told) > 0.5 / len(judged):
        raise StudyError(
            f"they give a {part} accuracy of {accuracy:.4f}, but metrics.json says {told:.4f}: run"
            " the fine-tune again"
        )
    return judged


def read_split(root, protocol):
    """Return the images that a run of `protocol` must have predicted, as a DataFrame: path, split,
    truth; and `train`, the number of training images, in its attrs."""
    import pandas

    path = Path(root) / "data/splits" / f"{protocol}.json"
    inventory_path = Path(root) / "data/inventory.parquet"
    for needed, stage in ((path, "prepare"), (inventory_path, "validate")):
        if not needed.exists():
            raise StudyError(f"{needed.relative_to(root)} is missing: run `dvc repro {stage}`")
    split, inventory = (
        read_json(path),
        pandas.read_parquet(inventory_path, columns=["path", "class"]),
    )
    parts = [inventory.iloc[split[part]].assign(split=part) for part in ("validation", "test")]
    images = pandas.concat(parts).rename(columns={"class": "truth"})
    images.attrs = {"train": len(split["train"]), "classes": split["classes"]}
    return images


def read_photographs(root):
    """Return data/photographs.parquet, or None where nothing is known of photographs."""
    import pandas

    path = Path(root) / "data/photographs.parquet"
    return pandas.read_parquet(path) if path.exists() else None


def results_table(runs):
    """Return the runs as one DataFrame, a row a run, without histories and predictions: what
    results.csv and times.csv hold.
    """
    import pandas

    columns = [
        "key",
        "experiment",
        "protocol",
        "backbone",
        "repeat",
        *FACTORS,
        "learning_rate_applied",
        "failed",
    ]
    columns += [f"{split}_{name}" for split in SPLITS for name in ("loss", "accuracy", "images")]
    columns += [
        "epochs",
        "parameters",
        "device",
        "processor",
        "threads",
        "precision",
        "software",
        "seed",
        *TIMES,
    ]
    rows = []
    for run in runs:
        seconds = run.get("learning_time_seconds")
        made = {} if run["failed"] else {"software": software_of(run)}
        timed = (
            {}
            if seconds is None
            else {"learning_time": duration(seconds), "learning_time_ms": milliseconds(seconds)}
        )
        rows.append({column: (run | made | timed).get(column) for column in columns})
    return pandas.DataFrame(rows, columns=columns).convert_dtypes()


def changed_factors(experiment, first):
    """Return the factors in which `experiment` differs from `first`, both mappings with the keys of
    FACTORS.
    """
    return tuple(factor for factor in FACTORS if experiment[factor] != first[factor])


def groups_of(experiments):
    """Return lists of experiment dicts: those that change the same factors of the first experiment
    stand together.

    The first group holds the first experiment (and any equal to it); groups come in order of their
    first member.
    """
    groups = {}
    for experiment in experiments:
        groups.setdefault(changed_factors(experiment, experiments[0]), []).append(experiment)
    return list(groups.values())


def summaries_of(runs):
    """Return one dict for each protocol, backbone and experiment, its repeats averaged.

    Keys: the axes and factors, series (how tables and figures call protocol and backbone), every
    (its runs), runs (those that did not fail), and, None where every repeat failed, accuracy (mean
    test accuracy, a share), seconds (mean learning time), time (the same as text).
    """
    several = len({run["backbone"] for run in runs}) > 1
    summaries = {}
    for run in runs:
        empty = {name: run[name] for name in ("experiment", "protocol", "backbone", *FACTORS)} | {
            "every": [],
            "runs": [],
        }
        empty["series"] = f"{run['backbone']}, {run['protocol']}" if several else run["protocol"]
        summary = summaries.setdefault((run["protocol"], run["backbone"], run["experiment"]), empty)
        summary["every"].append(run)
        if not run["failed"]:
            summary["runs"].append(run)
    for summary in summaries.values():
        done = summary["runs"]
        summary["accuracy"] = (
            sum(run["test_accuracy"] for run in done) / len(done) if done else None
        )
        summary["seconds"] = (
            sum(run["learning_time_seconds"] for run in done) / len(done) if done else None
        )
        summary["time"] = duration(summary["seconds"]) if done else None
    return list(summaries.values())


def by_series(summaries):
    """Return {series: its summaries}, in order."""
    series = {}
    for summary in summaries:
        series.setdefault(summary["series"], []).append(summary)
    return series


def best_of(summaries: list[dict]) -> list[dict]:
    """Return the summaries with the best test accuracy as it is printed: several where they tie,
    none where nothing ran.
    """
    done = [summary for summary in summaries if summary["runs"]]
    best = max((summary["accuracy"] for summary in done), default=0)
    return [summary for summary in done if percent(summary["accuracy"]) == percent(best)]


def chosen(runs):
    """Return the run that validation prefers: the best validation accuracy, of equal ones the least
    validation loss.

    The test images have no say in it, so the chosen run's test figures are not flattered by the
    choice.
    """
    return max(runs, key=lambda run: (run["validation_accuracy"], -run["validation_loss"]))
