"""The model card of the best held-out model, in the headings of Mitchell et al. 2019, Model Cards
for Model Reporting.
"""

from collections.abc import Iterable, Sequence

from hemotune.evaluation.leaks import NAMES, SharedPhotographs
from hemotune.evaluation.predictions import classes_of, per_photograph, photographs_known
from hemotune.evaluation.statistics import accuracy, expected_calibration_error
from hemotune.markup import escaped
from hemotune.settings.experiment import architecture
from hemotune.settings.study import Words
from tasks.report import experiments
from tasks.report.evidence import limitation_of
from tasks.report.health import unsound_trainings
from tasks.report.markdown import names_of, percent, render
from tasks.report.mistakes import class_table
from tasks.report.results import FinishedRun, Summary, best_by_validation
from tasks.report.study import Study


def write_card(study: Study, summaries: Iterable[Summary], warnings: Sequence[str]) -> str:
    """Return the text of model_card.md.

    Args:
        warnings: about the held-out models.
    """
    runs = [run for one in summaries if one.protocol == "held-out" for run in one.finished]
    if not runs:
        return render("no_model_card.md.j2", words=study.words)
    run = best_by_validation(runs)
    judged = run.judged
    per_image = accuracy([judged])
    known = photographs_known(judged)
    controls = study.controls.get("held-out")
    scores = controls.accuracies() if controls else {}
    versions = sorted(run.metrics.versions.items())
    return render(
        "model_card.md.j2",
        study=study,
        experiments=experiments,
        run=run,
        warnings=warnings,
        architecture=architecture(run.backbone, run.layers, run.units, run.head),
        versions=[escaped(f"{name} {number}") for name, number in versions],
        classes=classes_of(judged),
        per_image=per_image,
        limitation=limitation_of(per_image, study.words),
        per_photograph=accuracy([per_photograph(judged)]) if known else None,
        calibration_error=expected_calibration_error(judged),
        choice=explain_choice(run, runs),
        unsound=unsound_trainings([run]),
        origin_of_test=origin_of_test(
            controls.shared_photographs if controls else None, study.words
        ),
        scores=[f"{NAMES[name]} {percent(value)}" for name, value in scores.items()],
        class_table=class_table(judged, study.words),
    )


def explain_choice(run: FinishedRun, runs: Sequence[FinishedRun]) -> str:
    """Return how results.best_by_validation selected `run` from `runs`, and how its test accuracy
    ranks.
    """
    validation = run.metrics.validation
    tie = [one for one in runs if one.metrics.validation.accuracy == validation.accuracy]
    equal = [one for one in tie if one.metrics.validation.loss == validation.loss]
    text = "The model was selected by validation accuracy"
    if len(tie) > 1:
        text += f"; of {len(tie)} tied models, the one with the lowest validation loss was taken"
    if len(equal) > 1:
        text += f" (the first of {len(equal)} that also tie in this)"
    highest = max(one.metrics.test.accuracy for one in runs)
    top = [one for one in runs if one.metrics.test.accuracy == highest]
    if run.metrics.test.accuracy < highest:
        names = names_of([one.experiment for one in top])
        return f"{text}. Test accuracy was not used; the highest is {percent(highest)} ({names})."
    others = f", shared with {len(top) - 1} others" if len(top) > 1 else ""
    return f"{text}. Its test accuracy is the highest{others}."


def origin_of_test(shared: SharedPhotographs | None, words: Words) -> str:
    """Return what is known about the photographs of the test images."""
    if shared is None:
        return f"for which it is unknown whether they come from the same {words.plural} as train"
    lost = f"; the {words.unit} of {shared.not_found:,} was not found" if shared.not_found else ""
    if shared.share:
        return f"{percent(shared.share)} of them from {words.plural} that are also in train{lost}"
    if lost:
        return f"none of them known to be from {words.plural} that are also in train{lost}"
    return f"all from {words.plural} that are not in train"
