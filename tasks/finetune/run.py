"""One run: an experiment under one protocol, from one backbone, with one seed. Loads Keras."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from hemotune import hardware

hardware.use_fast_kernels()

with hardware.quick_import():
    import keras  # its backend reads the environment when it is imported
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import pandas as pd  # noqa: E402

from hemotune.errors import StudyError  # noqa: E402
from hemotune.files import new_file, new_folder, read_json, write_json  # noqa: E402
from hemotune.gpus import Device, choose_device  # noqa: E402
from hemotune.paths import (  # noqa: E402
    INVENTORY,
    MODELS,
    PIXELS,
    RECIPE,
    RESULTS,
    SPLITS,
)
from hemotune.settings.experiment import Experiment, architecture, training_of  # noqa: E402
from hemotune.settings.reading import read_params, read_profile  # noqa: E402
from hemotune.settings.training import Training  # noqa: E402
from hemotune.splits import ImageSplit, read_split  # noqa: E402
from hemotune.training import resume  # noqa: E402
from hemotune.training.fit import Data, Fit, Plan, fit, versions  # noqa: E402
from hemotune.training.fused_adam import adam, warming_up  # noqa: E402
from hemotune.training.inputs import Floats, Integers  # noqa: E402
from hemotune.training.model import Design, assemble, build_backbone, layers_of  # noqa: E402
from hemotune.training.observer import Observer, Seen, score  # noqa: E402
from hemotune.training.records import Epoch, Metrics, Scores, Software  # noqa: E402
from hemotune.training.resume import LAST_EPOCHS  # noqa: E402
from tasks.finetune.delivery import Delivered, deliver  # noqa: E402
from tasks.finetune.initialization import centre_head  # noqa: E402
from tasks.finetune.plan import FACTORS, Run  # noqa: E402
from tasks.finetune.start import (  # noqa: E402
    freeze_layers,
    refuse_what_has_no_use,
    starting_model,
)


@dataclass(frozen=True)
class Cells:
    """All images, and their parts in one protocol."""

    data: Data
    test: Integers  # row numbers
    paths: npt.NDArray[np.object_]  # (N,) str
    classes: list[str]  # in the order of the labels and of the network's outputs


def fine_tune(name: str, backbone: str, training_name: str) -> None:
    """Train, measure and write one run of the study.

    Args:
        name: the experiment's, in params.yaml.
        training_name: an entry of `trainings` in params.yaml.

    Raises:
        StudyError: a setting is wrong, a GPU or the backbone's weights cannot be used, or the
            training failed; in the last case .study/failures/KEY.json holds the reason.
    """
    experiment = read_params(f"experiments.{name}", Experiment)
    training = training_of(name, experiment, read_profile("training", Training))
    split = read_split(SPLITS / f"{training_name}.json")
    run = Run(name, backbone, split, experiment, training)
    run.failure_file.unlink(missing_ok=True)
    device = choose_device(training.precision)
    cells = read_cells(split)
    design = design_of(run, cells)
    keras.config.set_dtype_policy(device.precision)
    keras.utils.set_random_seed(run.seed)
    print(
        f"{run.key}: {architecture(backbone, design.layers, design.units, design.head)}, learning"
        f" rate {run.learning_rate:g}, {design.size} px, {device.precision} on {device.name}",
        flush=True,
    )
    model = starting_model(run.weights_file, design)
    refuse_what_has_no_use(model, cells.data, run)
    freeze_layers(model, cells.data, run)
    if training.initialization == "centred":
        centre_head(model, cells.data.images, cells.data.train, [run.seed, 0, 2])
    done = train(model, cells.data, run, device)
    delivered, observer = deliver(done, training.keep), done.observer
    validation, features = delivered.validation, delivered.features
    if device.precision != "float32":
        model = in_float32(model, design)
        observer = Observer.of(model, cells.data.images)
        validation = observer.see(cells.data.validation)
        features = observer.see(cells.data.train).features
    seen = {"validation": validation, "test": observer.see(cells.test)}
    predictions, scores = evaluate(seen, cells)
    predictions = add_validation_columns(predictions, done, delivered, cells.classes)
    with new_folder(MODELS / run.key) as folder:
        save_model(folder, model, cells.classes, np.concatenate([features, validation.features]))
    metrics = metrics_of(run, device, done, delivered, scores)
    write_results(RESULTS / run.key, predictions, done.course.history, metrics)
    resume.forget(run.states)
    test = metrics.test
    print(f"{run.key}: test accuracy {test.accuracy:.4f}, loss {test.loss:.4f}", flush=True)


def design_of(run: Run, cells: Cells) -> Design:
    """Return what the run's network looks like."""
    layers, units, training = run.experiment.layers, run.experiment.units, run.training
    size, classes = cells.data.images.shape[1], len(cells.classes)
    return Design(run.backbone, size, classes, layers, units, training.dropout, training.head)


def read_cells(split: ImageSplit) -> Cells:
    """Return all images, memory-mapped, with their parts in `split`."""
    images = np.load(PIXELS, mmap_mode="r")
    inventory = pd.read_parquet(INVENTORY, columns=["path", "class"])
    # -1 for a class of which no image is readable
    labels = pd.Categorical(inventory["class"], categories=split.classes).codes.astype(np.int64)
    data = Data(images, labels, np.array(split.train), np.array(split.validation))
    return Cells(data, np.array(split.test), inventory["path"].to_numpy(object), split.classes)


def balanced_weights(labels: Integers) -> dict[int, float]:
    """Return a weight for each class by label; those of its images sum to the same in every one."""
    classes, counts = np.unique(labels, return_counts=True)
    weights = len(labels) / (len(classes) * counts)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))


def train(model: keras.Model, data: Data, run: Run, device: Device) -> Fit:
    """Compile and fit a model, from the state that a killed process left.

    Raises:
        StudyError: as in `fit`; the reason is also written to the run's failure_file.
    """
    training, rate = run.training, run.learning_rate
    steps = len(data.train) // min(training.batch_size, len(data.train))  # in one epoch
    rising = round(training.warm_up * steps)
    model.compile(
        optimizer=adam(warming_up(rate, rising) if rising else rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    # With any other value the remaining epochs would not be the same.
    settings = {
        "experiment": run.experiment.model_dump(),
        "training": training.model_dump(),
        "seed": run.seed,
        "precision": device.precision,
        "size": data.images.shape[1],
        "threads": hardware.threads(),
        "versions": versions(),
    }
    code = sorted(Path(__file__).parent.glob("*.py"))
    files = [run.split_file, INVENTORY, run.weights_file, *code]
    state = run.states / resume.fingerprint(settings, files)
    balanced = training.class_weights == "balanced"
    plan = Plan(
        label="fine-tune",
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=rate,
        seed=run.seed,
        hold_images=device.is_gpu,
        averages=training.averages,
        augmentation=training.augmentation,
        class_weights=balanced_weights(data.labels[data.train]) if balanced else None,
    )
    try:
        return fit(model, data, plan, state)
    except StudyError as error:
        write_json(run.failure_file, {"reason": str(error)})
        raise


def in_float32(trained: keras.Model, design: Design) -> keras.Model:
    """Return the study's model with the weights of `trained`, computing in float32.

    In bfloat16 its answers would differ from device to device, and most CPUs only emulate it.
    """
    keras.config.set_dtype_policy("float32")
    model = assemble(build_backbone(design.backbone, design.size), design)
    model.set_weights(trained.get_weights())
    return model


def evaluate(seen: dict[str, Seen], cells: Cells) -> tuple[pd.DataFrame, dict[str, Scores]]:
    """Score what was seen of the validation and test images.

    Returns:
        DataFrame of path, split, truth and probability_CLASS for each class; the scores of
        validation and test.
    """
    scores, frames = {}, []
    labels, classes = cells.data.labels, np.array(cells.classes, object)
    for part, rows in {"validation": cells.data.validation, "test": cells.test}.items():
        probabilities = seen[part].probabilities
        loss, accuracy = score(probabilities, labels[rows])
        scores[part] = Scores(loss=loss, accuracy=accuracy, images=len(rows))
        columns = {"path": cells.paths[rows], "split": part, "truth": classes[labels[rows]]}
        columns |= {f"probability_{name}": probabilities[:, i] for i, name in enumerate(classes)}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True), scores


def add_validation_columns(
    predictions: pd.DataFrame, done: Fit, delivered: Delivered, classes: list[str]
) -> pd.DataFrame:
    """Add the classes predicted for validation images by what is not delivered.

    Returns:
        DataFrame with the further columns other_averages (by averages from other training images)
        and epoch_N for each of the last epochs N; None for test images.
    """
    last = done.course.history[-LAST_EPOCHS:]
    columns = {"other_averages": delivered.other_averages} | {
        f"epoch_{epoch.epoch}": predicted
        for epoch, predicted in zip(last, done.course.predicted, strict=True)
    }
    names, validation = np.array(classes, object), predictions["split"] == "validation"
    predictions = predictions.assign(**dict.fromkeys(columns))
    predictions.loc[validation, list(columns)] = names[np.column_stack(list(columns.values()))]
    return predictions


def save_model(folder: Path, model: keras.Model, classes: list[str], features: Floats) -> None:
    """Write into `folder` what others need to use the model, and nothing of its training.

    model.keras holds network, weights and preprocessing; model.json holds the class of each output
    and how an image file becomes the input. Beside them, features.npy holds features of the
    training and then of the validation images, in the order of the split: `hemotune predict` finds
    the nearest ones.
    """
    # A new model around the same layers is not compiled: no optimizer, no loss. What was frozen is
    # not either: that was a setting of the training.
    saved = keras.Model(model.inputs, model.outputs)
    # One by one: under TensorFlow, setting it for the model does not reach the nested backbone.
    for layer in layers_of(saved):
        layer.trainable = True
    saved.save(folder / "model.keras")
    write_json(folder / "model.json", {"classes": classes, "image": read_json(RECIPE)})
    np.save(folder / "features.npy", features.astype("float16"))


def metrics_of(
    run: Run, device: Device, done: Fit, delivered: Delivered, scores: dict[str, Scores]
) -> Metrics:
    """Return what metrics.json records of a run.

    Args:
        scores: of validation and test.
    """
    history, epoch = done.course.history, delivered.epoch
    made = read_json(run.weights_file.with_name("backbone.json"))
    rates = [finished.images_per_second for finished in history]
    return Metrics(
        experiment=run.name,
        protocol=run.split.protocol,
        backbone=run.backbone,
        repeat=run.split.repeat,
        layers=run.experiment.layers,
        units=run.experiment.units,
        learning_rate=run.experiment.learning_rate,
        # Without what the multiplication adds: 3e-05 instead of 3.0000000000000004e-05
        learning_rate_applied=float(f"{run.learning_rate:.12g}"),
        train=Scores(loss=epoch.loss, accuracy=epoch.accuracy, images=len(done.data.train)),
        **scores,
        health=delivered.health,
        learning_time_seconds=sum(epoch.seconds for epoch in history),
        **run.training.model_dump(include=FACTORS),
        parameters=done.network.count_params(),
        images_per_second=fmean(rates[1:] or rates),  # the first epoch compiles
        device=device.name,
        processor=hardware.cpu_name(),
        threads=hardware.threads(),
        precision=device.precision,
        versions=versions(),
        pretraining=Software.model_validate(made) if made["weights"] == "pretrain" else None,
        seed=run.seed,
    )


def write_results(
    folder: Path, predictions: pd.DataFrame, history: list[Epoch], metrics: Metrics
) -> None:
    """Write predictions.parquet, history.csv and metrics.json into `folder`."""
    with new_file(folder / "predictions.parquet") as file:
        predictions.to_parquet(file, index=False)
    with new_file(folder / "history.csv") as file:
        pd.DataFrame(history).to_csv(file, index=False, float_format="%.6g")
    write_json(folder / "metrics.json", metrics.model_dump())
