"""The model card of the best held-out model, in the headings of Mitchell et al. 2019, Model Cards for Model Reporting."""

from tasks.controls import NAMES, accuracies
from tasks.predictions import classes_of, per_photograph, photographs_known
from tasks.report.markdown import between, bullets, duration, listed, percent, rate
from tasks.report.mistakes import class_table
from tasks.report.results import chosen
from tasks.settings.experiment import architecture
from tasks.statistics import accuracy, expected_calibration_error

WEIGHTS = {"imagenet": "ImageNet weights", "pretrain": "weights pre-trained on drawn cells", "random": "random weights"}


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
    runs = [run for summary in summaries if summary["protocol"] == "held-out" for run in summary["runs"]]
    if not runs:
        return (
            "# Model card\n\nThere is none: no model was tested on held-out photographs, and a card with the random split's accuracy would "
            "promise what the model does not keep. Put `held-out` into `protocols:` in params.yaml and run the study again.\n"
        )
    run = chosen(runs)
    head = architecture(run["backbone"], run["layers"], run["units"])
    judged, training = run["judged"], study.profile.training
    known = photographs_known(judged)
    per_image = accuracy([judged])
    sample = study.profile.dataset.source == "sample"
    highest = max(runs, key=lambda other: other["test_accuracy"])
    data = f"{source['images']:,} images, `{source['source']}`, {source['reference']}" if source else "not recorded"
    version = f", version {source['version']}" if source.get("version") else ""
    versions = listed(f"{name} {number}" for name, number in sorted(run.get("versions", {}).items()))
    train, validation, test = sizes["held-out"]

    metrics = [
        f"Accuracy per image, with its 95 % interval from resampling photographs: **{between(per_image)}** on {test:,} images.",
        f"Accuracy per photograph (majority of its images): **{between(accuracy([per_photograph(judged)]))}** on "
        f"{per_image['photographs']:,} photographs."
        if known
        else "Accuracy per photograph: not known, for it is not known which images come from the same photograph.",
        f"Loss {run['test_loss']:.4f}; expected calibration error {percent(expected_calibration_error(judged))} (15 bins).",
        *[f"{note[0].upper()}{note[1:]}." for note in per_image["notes"]],
        "The model was chosen by validation accuracy "
        + ("and has" if highest is run else f"({highest['experiment']} has {percent(highest['test_accuracy'])},")
        + " the highest test accuracy"
        + ("." if highest is run else ", but the test images had no say)."),
    ]
    control = controls.get("held-out")
    if control:
        compared = listed(f"{NAMES[name]} {percent(value)}" for name, value in accuracies(control).items())
        metrics.append(f"Without any training, on the same split: {compared}.")

    sections = [
        f"# Model card: {head} ({run['experiment']})",
        "**Not for diagnosis.** This model has no clinical validation of any kind.",
        "**This is the sample:** its images are drawn, and it knows nothing about blood." if sample else "",
        *[f"> {warning}" for warning in warnings],
        "## Model details",
        bullets(
            [
                f"Architecture: {head}, softmax over {len(classes_of(judged))} classes, {run['parameters']:,} parameters",
                f"Fine-tuned from {WEIGHTS[study.profile.backbone.weights]}, all layers trained, {run['epochs']} epochs, "
                f"batch size {training.batch_size}, dropout {training.dropout:g}, Adam at {rate(run['learning_rate_applied'])}, "
                f"seed {run['seed']}",
                f"Input: RGB, {study.profile.images.size} × {study.profile.images.size} pixels; output: a probability for each of "
                f"{listed(classes_of(judged))}",
                f"Trained in {duration(run['learning_time_seconds'])} on {run['processor']}, {run['device']}, {run['precision']}",
                *([f"Made with {versions}"] if versions else []),
                f"File: `data/models/{run['key']}/model.keras`; `model.json` beside it names the classes in order and says how an image file "
                "becomes the input",
            ]
        ),
        "## Intended use",
        "Repeating and comparing a fine-tuning study, teaching, and as a baseline. Out of scope: any decision about a person's health, "
        "other stains, microscopes or cameras than the data set's, cells of other classes (the model always answers with one it knows).",
        "## Factors",
        "Classes of cells are told apart below. Patient, age, sex, laboratory and device of the photographs are not recorded, so no figure "
        "can be given for them.",
        "## Metrics",
        bullets(metrics),
        "## Evaluation data",
        f"Protocol `held-out`: {test:,} images of the data set's own TEST, {origin_of_test(control)}. {data}{version}.",
        "## Training data",
        f"{train:,} images for training and {validation:,} for validation, both from TRAIN; validation is cut by photograph where "
        "photographs are known. Most images are augmented copies of few photographs.",
        "## Quantitative analyses",
        class_table(judged),
        "## Ethical considerations",
        "The photographs are of people's blood; the data set names no person. A wrong answer looks as sure as a right one: see the "
        "calibration and the most confident errors in [study.md](study.md).",
        "## Caveats and recommendations",
        bullets(
            [
                "A higher figure from a random split of these images measures recognition of copies; do not quote it for this model.",
                "The test holds few photographs, in some classes a handful: read the intervals, not the second digit.",
                "Before any other use, test on photographs from the place of use, and compare with the controls.",
            ]
        ),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def origin_of_test(control):
    """Return what is known of the test's photographs, of a protocol's entry of data/controls.json or None."""
    shared = control and control["shared_photographs"]
    if not shared:
        return "of which nobody knows whether they come from the same photographs as TRAIN"
    lost = f"; the photograph of {shared['alone']:,} was not found" if shared["alone"] else ""
    if shared["share"]:
        return f"{percent(shared['share'])} of them made from a photograph that is in train too{lost}"
    return f"none of them known to share a photograph with train{lost}" if lost else "made from other photographs than TRAIN"
