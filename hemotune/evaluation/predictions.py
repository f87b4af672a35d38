"""The predictions of a run, checked once and judged: per image, and per photograph."""

import numpy as np
import pandas as pd

from hemotune.errors import StudyError

PREFIX = "probability_"


def judge(predictions, split="test", images=None, photographs=None):
    """Check the predictions of one split and return them judged.

    Args:
        predictions: DataFrame as in predictions.parquet: path, split, truth, probability_CLASS for
            each class.
        split: which rows of it, by the column `split`.
        images: paths that must be there, each once, and no other; None skips that check.
        photographs: DataFrame with path and photograph, or None where photographs are unknown.

    Returns:
        DataFrame indexed by path, sorted: photograph (None in every row if unknown), truth,
            prediction (of equally probable classes the
        first by name), confidence (its probability), correct (bool), probability_CLASS.

    Raises:
        StudyError: an image is missing, twice there or unexpected, or has no photograph; a
            probability is missing, below 0, or they do not sum to one; a truth is none of the
            classes.
    """
    needed = {"path", "split", "truth"} - set(predictions.columns)
    columns = sorted(c for c in predictions.columns if c.startswith(PREFIX))
    if needed or len(columns) < 2:
        lacks = ", ".join(sorted(needed)) or f"two or more {PREFIX}CLASS"
        raise StudyError(f"predictions lack the columns {lacks}: run the fine-tune again")
    rows = predictions[predictions["split"] == split]
    if rows.empty:
        raise StudyError(
            f"predictions hold no image of the split '{split}': run the fine-tune again"
        )
    refuse("predicted twice", rows["path"][rows["path"].duplicated()])
    if images is not None:
        refuse("without a prediction", set(images) - set(rows["path"]))
        refuse(f"predicted, though not in the split '{split}'", set(rows["path"]) - set(images))
    probability = rows[columns].to_numpy(dtype=np.float64)
    refuse(
        "with a missing or infinite probability",
        rows["path"][~np.isfinite(probability).all(axis=1)],
    )
    # 1e-2: a softmax in bfloat16 is that coarse.
    refuse(
        "whose probabilities are negative or do not sum to one",
        rows["path"][(probability.min(axis=1) < 0) | off_one(probability)],
    )
    classes = np.array([c.removeprefix(PREFIX) for c in columns])
    refuse(
        f"whose truth is none of {', '.join(classes)}", rows["path"][~rows["truth"].isin(classes)]
    )

    table = rows[["path", "truth", *columns]].copy()
    table["prediction"] = classes[probability.argmax(axis=1)]
    table["confidence"] = probability.max(axis=1)
    table["correct"] = table["prediction"] == table["truth"]
    if photographs is None:
        table["photograph"] = None
    else:
        known = photographs.set_index("path")["photograph"]
        refuse("with two photographs", known.index[known.index.duplicated()])
        table["photograph"] = table["path"].map(known)
        refuse("without a photograph", table["path"][table["photograph"].isna()])
    return table.set_index("path").sort_index()[
        ["photograph", "truth", "prediction", "confidence", "correct", *columns]
    ]


def off_one(probability):
    """Return which rows of `probability` (N, classes) do not sum to one, within 1e-2."""
    return np.abs(probability.sum(axis=1) - 1) > 1e-2


def refuse(what, paths):
    """Raise StudyError if there are `paths`; the message counts them and names three."""
    paths = sorted(set(paths))
    if paths:
        raise StudyError(
            f"predictions: {len(paths)} images {what}:"
            f" {', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''}"
        )


def photographs_known(table):
    """Return whether the judged `table` says which photograph each image came from."""
    return bool(table["photograph"].notna().all())


def per_photograph(table):
    """Return one judged row a photograph: the class that most of its images were given.

    Of classes with equally many images the one with the higher mean probability wins, then the
    first by name. A photograph whose images have two truths gives a row for each truth. The result
    is a judged table too (index: photograph and truth; also `images`), so that `accuracy`,
    `difference`, `mcnemar`, `per_class` and `confusion` take it.

    Raises:
        StudyError: photographs are unknown.
    """
    if not photographs_known(table):
        raise StudyError(
            "accuracy per photograph needs to know the photographs: data/photographs.parquet is"
            " missing"
        )
    classes = classes_of(table)
    columns = [PREFIX + c for c in classes]
    groups = table.groupby(["photograph", "truth"], sort=True)
    mean = groups[columns].mean()
    votes = pd.crosstab([table["photograph"], table["truth"]], table["prediction"])
    votes = votes.reindex(index=mean.index, columns=classes, fill_value=0).to_numpy()
    winner = np.where(votes == votes.max(axis=1, keepdims=True), mean.to_numpy(), -1.0).argmax(
        axis=1
    )

    result = mean.assign(
        images=groups.size(), confidence=mean.to_numpy()[np.arange(len(mean)), winner]
    )
    result["photograph"] = mean.index.get_level_values("photograph")
    result["truth"] = mean.index.get_level_values("truth")
    result["prediction"] = np.array(classes)[winner]
    result["correct"] = result["prediction"] == result["truth"]
    return result.rename_axis(["of", "class"])


def classes_of(table):
    """Return the names of the classes, in the order of the columns: sorted."""
    return [c.removeprefix(PREFIX) for c in table.columns if c.startswith(PREFIX)]
