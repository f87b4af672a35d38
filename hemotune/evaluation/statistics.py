"""What the results are worth: accuracy with intervals, paired comparisons, calibration, effects of
factors.

Images made of one photograph are copies, not independent observations. So every interval here
resamples photographs (a cluster
bootstrap: Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8), never
images.

Every table here is a judged one (hemotune/evaluation/predictions.py). Wherever a function takes
`runs`, that is one judged table or a list of them: the repeats of one experiment on the same test
images.
"""

import itertools

import numpy as np
import pandas as pd

from hemotune.errors import StudyError
from hemotune.evaluation.predictions import classes_of, photographs_known

FEW_PHOTOGRAPHS = 20  # below it the bootstrap's intervals are known to be too narrow
BLOCK = 2_000_000  # numbers drawn at once: memory stays flat


def accuracy(runs, resamples=10_000, seed=1, level=0.95):
    """Return the accuracy, the mean over repeats, with its interval from resampling photographs.

    The interval is the percentile one. With several repeats these are resampled too, so that it
    covers what the seed does. Where every answer is right, or every one wrong, resampling would say
    that nothing is uncertain; then the interval is the exact binomial one (Clopper & Pearson 1934)
    with as many trials as there are photographs.

    Returns:
        dict: value, low, high (fractions; low and high None where there is no interval), units
            (images, or photographs after
        `per_photograph`), photographs (None if unknown), repeats, notes (list of sentences: what
        weakens the interval).
    """
    runs = as_list(runs)
    sums, sizes = sums_of(runs)
    value = float(sums.sum(axis=0).mean() / sizes.sum())
    low = high = None
    if len(sizes) > 1:
        if value in (0.0, 1.0):
            from statsmodels.stats.proportion import proportion_confint

            low, high = proportion_confint(
                round(value * len(sizes)), len(sizes), alpha=1 - level, method="beta"
            )
        else:
            (drawn,) = resample([sums], sizes, resamples, seed)
            low, high = quantiles(drawn, level)
    return {"value": value, "low": as_float(low), "high": as_float(high), **counts(runs, sizes)}


def difference(first, second, resamples=10_000, seed=1, level=0.95):
    """Compare two runs, or two lists of repeats, on the same test images: accuracy of `second`
    minus that of `first`.

    Both are resampled with the same photographs (paired). p is that of the sign-flip test on the
    photographs' differences (scipy.stats.permutation_test; exact for few): unlike the interval it
    stays honest where only a handful of photographs differ. The difference is called
    distinguishable where the interval excludes 0 and p < 1 - level.

    Returns:
        dict: value, low, high, p, distinguishable (bool), and units, photographs, repeats, notes as
            `accuracy` gives them.

    Raises:
        StudyError: the two were tested on different images.
    """
    first, second = as_list(first), as_list(second)
    same_images([*first, *second])
    (a, sizes), (b, _) = sums_of(first), sums_of(second)
    change = b.mean(axis=1) - a.mean(axis=1)
    value = float(change.sum() / sizes.sum())
    result = {
        "value": value,
        "low": None,
        "high": None,
        "p": sign_flip(change, seed),
        "distinguishable": False,
    }
    if len(sizes) > 1:
        drawn_a, drawn_b = resample([a, b], sizes, resamples, seed)
        result["low"], result["high"] = quantiles(drawn_b - drawn_a, level)
        result["distinguishable"] = bool(
            (result["low"] > 0 or result["high"] < 0) and result["p"] < 1 - level
        )
    result.update(counts([*first, *second], sizes))
    result["repeats"] = min(len(first), len(second))
    if result["repeats"] == 1:
        result["notes"].append(
            "one training each: the interval does not cover the choice of the seed"
        )
    return result


def sign_flip(change, seed):
    """Return the two-sided p that the mean of `change` (one number a photograph) is 0, from
    flipping signs at random.
    """
    from scipy.stats import permutation_test

    change = change[change != 0]
    if change.size < 2:  # with one photograph that differs, either sign is as far from 0
        return 1.0

    def total(x, axis):
        return x.sum(axis=axis)

    batch = max(1, BLOCK // change.size)
    rng = np.random.default_rng(seed)
    return float(
        permutation_test(
            (change,), total, permutation_type="samples", n_resamples=9_999, batch=batch, rng=rng
        ).pvalue
    )


def mcnemar(first, second):
    """McNemar's exact test of two judged tables on the same images, or of the same photographs
    after `per_photograph`.

    On images it takes copies of one photograph for independent, and its p is then too small; on
    photographs it is right.

    Returns:
        dict: both, only_first, only_second, neither (how many each got right), p (two-sided,
            statsmodels).

    Raises:
        StudyError: the two were tested on different images.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    same_images([first, second])
    a, b = first["correct"].to_numpy(dtype=bool), second["correct"].to_numpy(dtype=bool)
    counted = [
        [int((a & b).sum()), int((a & ~b).sum())],
        [int((~a & b).sum()), int((~a & ~b).sum())],
    ]
    (both, only_first), (only_second, neither) = counted
    p = float(test(counted, exact=True).pvalue)
    return {
        "both": both,
        "only_first": only_first,
        "only_second": only_second,
        "neither": neither,
        "p": p,
    }


def per_class(table):
    """Return a row a class: precision, recall, f1 (NaN where undefined), units, photographs (None
    if unknown), note (str).
    """
    from sklearn.metrics import precision_recall_fscore_support

    classes = classes_of(table)
    precision, recall, f1, units = precision_recall_fscore_support(
        table["truth"].to_list(),
        table["prediction"].to_list(),
        labels=classes,
        zero_division=np.nan,
    )
    units = units.astype(int)  # scikit-learn gives floats where no prediction is right
    f1 = np.where(units > 0, f1, np.nan)  # and 0 for a class that was predicted without being there
    photographs, notes = [], []
    for name, number in zip(classes, units, strict=True):
        found = (
            table.loc[table["truth"] == name, "photograph"].nunique()
            if photographs_known(table)
            else None
        )
        photographs.append(found)
        notes.append(
            "no test image"
            if number == 0
            else "one photograph: says nothing of others"
            if found == 1
            else ""
        )
    columns = {"class": classes, "precision": precision, "recall": recall, "f1": f1, "units": units}
    return pd.DataFrame({**columns, "photographs": photographs, "note": notes})


def confusion(table):
    """Return the counts (classes, classes): a row a truth, a column a prediction, in the order of
    names.
    """
    from sklearn.metrics import confusion_matrix

    classes = classes_of(table)
    counted = confusion_matrix(
        table["truth"].to_list(), table["prediction"].to_list(), labels=classes
    )
    return pd.DataFrame(
        counted, index=pd.Index(classes, name="truth"), columns=pd.Index(classes, name="prediction")
    )


def reliability(table, bins=15):
    """Return a row a bin of confidence that holds images: low, high (bounds; low < confidence <=
    high), images, confidence, accuracy.
    """
    edges = np.linspace(0, 1, bins + 1)
    confidence, correct = table["confidence"].to_numpy(), table["correct"].to_numpy(dtype=float)
    place = np.searchsorted(edges[1:-1], confidence)
    images = np.bincount(place, minlength=bins)
    full = images > 0
    means = [
        np.bincount(place, weights=x, minlength=bins)[full] / images[full]
        for x in (confidence, correct)
    ]
    names = {"low": edges[:-1][full], "high": edges[1:][full], "images": images[full]}
    return pd.DataFrame({**names, "confidence": means[0], "accuracy": means[1]})


def expected_calibration_error(table, bins=15):
    """Return the mean of |accuracy - confidence| over equal bins, weighted by images (Guo et al.
    2017), a fraction.
    """
    curve = reliability(table, bins)
    return float(
        np.average((curve["accuracy"] - curve["confidence"]).abs(), weights=curve["images"])
    )


def most_confident_errors(table, n=20):
    """Return the `n` wrong rows of greatest confidence, the surest first, with `path` as a
    column.
    """
    wrong = table[~table["correct"].astype(bool)].reset_index()
    return wrong.sort_values(
        ["confidence", "path"], ascending=[False, True], ignore_index=True
    ).head(n)


def spread(values):
    """Return mean, minimum, maximum and repeats of one figure over repeats.

    Raises:
        StudyError: there is no value, or one is not a number.
    """
    values = np.asarray(values, dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise StudyError(
            f"the spread of {values.size} repeats cannot be told: a value is missing or not a"
            " number"
        )
    return {
        "mean": float(values.mean()),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "repeats": int(values.size),
    }


def factor_effects(results, runs, factor, factors=("layers", "units", "learning_rate", "backbone")):
    """Compare every two experiments of one protocol that differ in `factor` and in none of the
    other `factors`.

    Args:
        results: DataFrame, a row a run: key, experiment, protocol, backbone, repeat, layers, units,
            learning_rate, and learning_time_seconds if times are to be compared.
        runs: dict of key to judged table.

    Returns:
        DataFrame, a row a pair: factor, protocol, first, second (the values compared, the smaller
            first), first_experiment,
        second_experiment, difference, low, high (accuracy of second minus first), p, verdict
        ("higher", "lower" or "not distinguishable"), time_ratio (second / first, NaN if unknown),
        notes. Empty where no two experiments differ in it alone.

    Raises:
        StudyError: the results name a run that has no predictions, or a pair was tested on
            different images.
    """
    missing = sorted(set(results["key"]) - set(runs))
    if missing:
        raise StudyError(
            f"data/results: no predictions of {', '.join(missing[:3])}: run the study again"
        )
    fixed = ["protocol", *(f for f in factors if f != factor)]
    found = []
    for alike, rows in results.groupby(fixed, sort=True):
        groups = [group for _, group in rows.groupby([factor, "experiment"], sort=True)]
        for a, b in itertools.combinations(groups, 2):
            first, second = a[factor].iloc[0], b[factor].iloc[0]
            if first == second:
                continue
            change = difference([runs[k] for k in a["key"]], [runs[k] for k in b["key"]])
            verdict = (
                ("higher" if change["value"] > 0 else "lower")
                if change["distinguishable"]
                else "not distinguishable"
            )
            time = "learning_time_seconds"
            found.append(
                {
                    "factor": factor,
                    "protocol": alike[0],
                    "first": first,
                    "second": second,
                    "first_experiment": a["experiment"].iloc[0],
                    "second_experiment": b["experiment"].iloc[0],
                    "difference": change["value"],
                    **{k: change[k] for k in ("low", "high", "p")},
                    "verdict": verdict,
                    "time_ratio": b[time].mean() / a[time].mean() if time in results else np.nan,
                    "notes": change["notes"],
                }
            )
    columns = ["factor", "protocol", "first", "second", "first_experiment", "second_experiment"]
    return pd.DataFrame(
        found,
        columns=[*columns, "difference", "low", "high", "p", "verdict", "time_ratio", "notes"],
    )


def resample(sums, sizes, resamples, seed):
    """Draw photographs with replacement, the same for every entry of `sums`, and repeats likewise,
    each entry its own.

    Args:
        sums: list of arrays (photographs, repeats): right answers in each photograph.
        sizes: (photographs,) images in each.

    Returns:
        list of arrays (resamples,): the accuracy of each entry in each resample, the mean over
        repeats.
    """
    rng = np.random.default_rng(seed)
    drawn = [np.empty(resamples) for _ in sums]
    step = max(1, BLOCK // len(sizes))
    for start in range(0, resamples, step):
        block = slice(start, min(start + step, resamples))
        chosen = rng.integers(len(sizes), size=(block.stop - start, len(sizes)))
        images = sizes[chosen].sum(axis=1)
        for entry, result in zip(sums, drawn, strict=True):
            repeats = entry.shape[1]
            right = np.stack([entry[:, r][chosen].sum(axis=1) for r in range(repeats)], axis=1)
            weights = (
                rng.multinomial(repeats, np.full(repeats, 1 / repeats), size=len(right)) / repeats
            )
            result[block] = (right * weights).sum(axis=1) / images
    return drawn


def sums_of(runs):
    """Return right answers (photographs, repeats) and images (photographs,); where photographs are
    unknown each image is its own.
    """
    same_images(runs)
    groups = runs[0]["photograph"] if photographs_known(runs[0]) else np.arange(len(runs[0]))
    place = pd.factorize(groups)[0]
    sums = [np.bincount(place, weights=run["correct"].to_numpy(dtype=float)) for run in runs]
    return np.stack(sums, axis=1), np.bincount(place)


def counts(runs, sizes):
    """Return units, photographs, repeats and notes for a figure computed from `runs` with images
    `sizes` in each photograph.
    """
    known, notes = photographs_known(runs[0]), []
    if not known:
        notes.append(
            "photographs are unknown: the interval takes every image for independent and is too"
            " narrow if some are copies"
        )
    elif len(sizes) == 1:
        notes.append("one photograph: no interval can be given")
    elif len(sizes) < FEW_PHOTOGRAPHS:
        notes.append(f"only {len(sizes)} photographs: the interval itself is uncertain")
    photographs = len(sizes) if known else None
    return {"units": len(runs[0]), "photographs": photographs, "repeats": len(runs), "notes": notes}


def same_images(runs):
    """Raise StudyError unless all judged tables hold the same images, of the same truth and
    photograph.
    """
    for run in runs[1:]:
        if not run.index.equals(runs[0].index):
            apart = run.index.symmetric_difference(runs[0].index)
            raise StudyError(
                f"runs were tested on different images ({len(apart)} are in one alone): run both on"
                " the same data"
            )
        if not (
            run["truth"].equals(runs[0]["truth"])
            and run["photograph"].equals(runs[0]["photograph"])
        ):
            raise StudyError(
                "runs disagree on the truth or photograph of the same images: run both on the same"
                " data"
            )


def as_list(runs):
    return [runs] if isinstance(runs, pd.DataFrame) else list(runs)


def as_float(value):
    return None if value is None else float(value)


def quantiles(values, level):
    return tuple(float(q) for q in np.quantile(values, [(1 - level) / 2, (1 + level) / 2]))
