"""The model card of the best held-out model, in the headings of Mitchell et al. 2019, Model Cards
for Model Reporting.
"""

from hemotune.evaluation.leaks import NAMES, accuracies
from hemotune.evaluation.predictions import classes_of, per_photograph, photographs_known
from hemotune.evaluation.statistics import accuracy, expected_calibration_error
from hemotune.markup import escaped
from hemotune.settings.experiment import architecture
from tasks.report.markdown import between, bullets, duration, listed, names_of, percent, rate
from tasks.report.mistakes import class_table
from tasks.report.results import chosen

WEIGHTS = {
    "imagenet": "ImageNet weights",
    "pretrain": "weights pre-trained on drawn cells",
    "random": "random weights",
}


def write_card(study, summaries, controls, source, sizes, warnings):
    """Return the text of model_card.md.

    Args:
        study: report.study.Study.
        summaries: what results.summaries_of returns.
        controls: data/controls.json, or {}.
        source: data/raw/source.json, or {}.
        sizes: mapping from protocol to (train, validation, test) numbers of images.
        warnings: sentences that the report shows at its top and that a user of the model must know.
    """
    runs = [
        run for summary in summaries if summary["protocol"] == "held-out" for run in summary["runs"]
    ]
    if not runs:
        return (
            "# Model card\n\nThere is none: no model was tested on held-out photographs, and a card"
            " with the random split's accuracy would promise what the model does not keep. Put"
            " `held-out` into `protocols:` in params.yaml and run the study again.\n"
        )
    run = chosen(runs)
    head = architecture(run["backbone"], run["layers"], run["units"])
    judged, training = run["judged"], study.profile.training
    known = photographs_known(judged)
    per_image = accuracy([judged])
    sample = study.profile.dataset.source == "sample"
    data = (
        f"{source['images']:,} images, `{source['source']}`, {escaped(source['reference'])}"
        if source
        else "not recorded"
    )
    version = f", version {escaped(source['version'])}" if source.get("version") else ""
    versions = listed(
        escaped(f"{name} {number}") for name, number in sorted(run.get("versions", {}).items())
    )
    train, validation, test = sizes["held-out"]

    metrics = [
        (
            "Accuracy per image, with its 95 % interval from resampling photographs:"
            f" **{between(per_image)}** on {test:,} images."
        ),
        (
            "Accuracy per photograph (majority of its images):"
            f" **{between(accuracy([per_photograph(judged)]))}** on {per_image['photographs']:,}"
            " photographs."
            if known
            else (
                "Accuracy per photograph: not known, for it is not known which images come from the"
                " same photograph."
            )
        ),
        (
            f"Loss {run['test_loss']:.4f}; expected calibration error"
            f" {percent(expected_calibration_error(judged))} (15 bins)."
        ),
        *[f"{note[0].upper()}{note[1:]}." for note in per_image["notes"]],
        how_chosen(run, runs),
    ]
    control = controls.get("held-out")
    if control:
        compared = listed(
            f"{NAMES[name]} {percent(value)}" for name, value in accuracies(control).items()
        )
        metrics.append(f"Without any training, on the same split: {compared}.")

    sections = [
        f"# Model card: {head} ({escaped(run['experiment'])})",
        "**Not for diagnosis.** This model has no clinical validation of any kind.",
        (
            "**This is the sample:** its images are drawn, and it knows nothing about blood."
            if sample
            else ""
        ),
        *[f"> {warning}" for warning in warnings],
        "## Model details",
        bullets(
            [
                (
                    f"Architecture: {head}, softmax over {len(classes_of(judged))} classes,"
                    f" {run['parameters']:,} parameters"
                ),
                (
                    f"Fine-tuned from {WEIGHTS[study.profile.backbone.weights]}, all layers"
                    f" trained, {run['epochs']} epochs, batch size {training.batch_size}, dropout"
                    f" {training.dropout:g}, Adam at {rate(run['learning_rate_applied'])}, seed"
                    f" {run['seed']}"
                ),
                (
                    f"Input: RGB, {study.profile.images.size} × {study.profile.images.size} pixels;"
                    f" output: a probability for each of {listed(map(escaped, classes_of(judged)))}"
                ),
                (
                    f"Trained in {duration(run['learning_time_seconds'])} on"
                    f" {escaped(run['processor'])}, {escaped(run['device'])}, {run['precision']}"
                ),
                *([f"Made with {versions}"] if versions else []),
                (
                    f"File: `data/models/{run['key']}/model.keras`; `model.json` beside it names"
                    " the classes in order and says how an image file becomes the input"
                ),
            ]
        ),
        "## Intended use",
        (
            "Repeating and comparing a fine-tuning study, teaching, and as a baseline. Out of"
            " scope: any decision about a person's health, other stains, microscopes or cameras"
            " than the data set's, cells of other classes (the model always answers with one it"
            " knows)."
        ),
        "## Factors",
        (
            "Classes of cells are told apart below. Patient, age, sex, laboratory and device of the"
            " photographs are not recorded, so no figure can be given for them."
        ),
        "## Metrics",
        bullets(metrics),
        "## Evaluation data",
        (
            f"Protocol `held-out`: {test:,} images of the data set's own TEST,"
            f" {origin_of_test(control)}. {data}{version}."
        ),
        "## Training data",
        (
            f"{train:,} images for training and {validation:,} for validation, both from TRAIN;"
            " validation is cut by photograph where photographs are known. Most images are"
            " augmented copies of few photographs."
        ),
        "## Quantitative analyses",
        class_table(judged),
        "## Ethical considerations",
        (
            "The photographs are of people's blood; the data set names no person. A wrong answer"
            " looks as sure as a right one: see the calibration and the most confident errors in"
            " [study.md](study.md)."
        ),
        "## Caveats and recommendations",
        bullets(
            [
                (
                    "A higher figure from a random split of these images measures recognition of"
                    " copies; do not quote it for this model."
                ),
                (
                    "The test holds few photographs, in some classes a handful: read the intervals,"
                    " not the second digit."
                ),
                (
                    "Before any other use, test on photographs from the place of use, and compare"
                    " with the controls."
                ),
            ]
        ),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def how_chosen(run: dict, runs: list[dict]) -> str:
    """Return in a sentence why the card is about `run`, which results.chosen took of `runs`, and
    how its test accuracy ranks.
    """
    tie = [other for other in runs if other["validation_accuracy"] == run["validation_accuracy"]]
    equal = [other for other in tie if other["validation_loss"] == run["validation_loss"]]
    text = "The model was chosen by validation accuracy"
    if len(tie) > 1:
        text += f", in which {len(tie)} models tie, and then by the least validation loss"
    if len(equal) > 1:
        text += f", in which {len(equal)} tie: it is the first of them"
    highest = max(other["test_accuracy"] for other in runs)
    top = [other for other in runs if other["test_accuracy"] == highest]
    if not any(run is other for other in top):
        return (
            f"{text}. The highest test accuracy, {percent(highest)} ({names_of(top)}), had no say."
        )
    return f"{text}. Its test accuracy is the highest" + (
        f", as that of {len(top) - 1} others." if len(top) > 1 else "."
    )


def origin_of_test(control):
    """Return what is known of the test's photographs, of a protocol's entry of data/controls.json
    or None.
    """
    shared = control and control["shared_photographs"]
    if not shared:
        return "of which nobody knows whether they come from the same photographs as TRAIN"
    lost = (
        f"; the photograph of {shared['not_found']:,} was not found" if shared["not_found"] else ""
    )
    if shared["share"]:
        return (
            f"{percent(shared['share'])} of them made from a photograph that is in train too{lost}"
        )
    return (
        f"none of them known to share a photograph with train{lost}"
        if lost
        else "made from other photographs than TRAIN"
    )
