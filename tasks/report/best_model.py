"""The best model, in a folder of its own that `hemotune predict` and others use."""

import re
import shutil
from collections.abc import Iterable

from hemotune.errors import StudyError
from hemotune.evaluation.calibration import LEVEL, why_no_sets
from hemotune.files import new_folder
from hemotune.paths import BEST, MODELS
from hemotune.prediction import knowledge
from hemotune.prediction.knowledge import MODEL, RECIPE, Use
from hemotune.settings.study import Words
from tasks.report.markdown import percent
from tasks.report.results import FinishedRun, best_by_validation

# A protocol whose validation shares no group with training comes before one that may.
PROTOCOLS = ("held-out", r"fold-\d+", "random")


def choose(runs: Iterable[FinishedRun]) -> FinishedRun | None:
    """Return the run with the best validation accuracy of the first of PROTOCOLS that was run."""
    finished = list(runs)
    for protocol in PROTOCOLS:
        if of_protocol := [run for run in finished if re.fullmatch(protocol, run.protocol)]:
            return best_by_validation(of_protocol)
    return None


def write_best(run: FinishedRun | None, words: Words) -> Use | None:
    """Copy the model of a run to data/models/best, with what is known of it; return that.

    Without a run, an earlier best model is removed.

    Raises:
        StudyError: the run's model is missing.
    """
    if run is None:
        shutil.rmtree(BEST, ignore_errors=True)
        return None
    known = knowledge.gather(run.key, words, unsound=[one.found for one in run.problems])
    with new_folder(BEST) as folder:
        for name in (MODEL, RECIPE):
            try:
                shutil.copyfile(MODELS / run.key / name, folder / name)
            except FileNotFoundError as error:
                raise StudyError(
                    f"{error.filename} is missing: run `dvc checkout` or `dvc repro"
                    f" finetune@{run.key}`"
                ) from None
        knowledge.write(known, folder)
    return known.use


def describe(use: Use) -> str:
    """Return how the model's probabilities are to be read, as sentences."""
    found = use.calibration
    warning = f"**Its training is unsound:** {'; '.join(use.unsound)}. " if use.unsound else ""
    fitted = f"{found.images:,} validation images"
    if found.photographs is not None:
        fitted += f" of {found.photographs:,} {use.units}"
    text = (
        f"{warning}Its probabilities are calibrated by a temperature of {found.temperature:.2f},"
        f" fitted on {fitted}: there the expected calibration error is"
        f" {percent(found.error_before)} before and {percent(found.error_after)} after."
    )
    reason = why_no_sets(found, use.unit, use.units)
    if reason:
        return f"{text} It gives no sets that hold the truth: {reason}."
    return f"{text} Its sets hold the truth for {LEVEL:.0%} of images of new {use.units}."
