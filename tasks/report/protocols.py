"""The protocols in the report's words: how the images were cut, how often each row was trained."""

from collections.abc import Sequence

from hemotune.markup import code
from hemotune.settings.split import Split
from hemotune.settings.study import Words
from hemotune.splits import ImageSplit
from tasks.report.markdown import bold, counted, listed
from tasks.report.results import FailedRun, Summary
from tasks.report.study import Study


def cut_of(split: ImageSplit, words: Words) -> str:
    """Return how the images of a protocol were cut."""
    if split.folds:
        return (
            f"all images, cut by {words.unit}, so that each is tested by the one training that has"
            f" not seen its {words.unit}; validation is cut by {words.unit} from the rest"
        )
    if split.protocol == "random":
        return f"all images, split at random, so that train and test may share {words.plural}"
    test, validation = (
        "the data set's own" if own else f"cut off by {words.unit}"
        for own in (split.own_test, split.own_validation)
    )
    if test == validation:
        return f"the test set and the validation set are {test}"
    return f"the test set is {test}, the validation set is {validation}"


def cut_in_short(cut: ImageSplit, requested: Split, words: Words) -> str:
    """Return the same in few words, beside the sizes of this one split."""
    if cut.folds:
        return f"cut by {words.unit}; these are fold {cut.fold}'s"
    if cut.own_test:
        return "tested on the data set's own test set"
    parts = (requested.train, requested.validation, requested.test)
    fractions = "/".join(f"{100 * part:g}" for part in parts)
    return f"{'random' if cut.protocol == 'random' else f'by {words.unit}'} {fractions}"


def sizes_of(splits: Sequence[ImageSplit]) -> str:
    """Return the numbers of images in each part, over the folds if there are several."""
    texts = []
    for part in ("train", "validation", "test"):
        sizes = [len(getattr(split, part)) for split in splits]
        least, most = f"{min(sizes):,}", f"{max(sizes):,}"
        texts.append(f"{least if least == most else f'{least} to {most}'} {part}")
    return f"{', '.join(texts)} images"


def trainings_of(study: Study) -> str:
    """Return how often each row is trained, e.g. `3 of random and 5 of 5 folds`."""
    return listed(f"{len(splits)} of {code(name)}" for name, splits in study.protocols.items())


def missing_of(group: Sequence[Summary]) -> list[str]:
    """Return which trainings the figures of a row lack, for each row that has others."""
    missing = []
    for summary in group:
        failed = [code(run.training) for run in summary.runs if isinstance(run, FailedRun)]
        if failed and summary.finished:
            missing.append(
                f"{bold(summary.experiment)} is without {listed(failed)}: its figures are those of"
                " the others."
            )
    return missing


def caption_of(group: Sequence[Summary]) -> str:
    """Return what the accuracies of one series are: of one training, means, or out-of-fold."""
    runs = [run for summary in group for run in summary.runs]
    folds, repeats = {run.fold for run in runs} - {None}, {run.repeat for run in runs}
    texts = []
    if folds:
        texts.append("each image tested in its fold")
    if len(repeats) > 1:
        texts.append(f"means of {counted(len(repeats), 'repeat')}")
    return "".join(f", {text}" for text in texts)
