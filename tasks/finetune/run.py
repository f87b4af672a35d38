"""One run: an experiment under one protocol, from one backbone, with one seed. Loads Keras."""

from pathlib import Path

from hemotune import hardware

hardware.use_fast_kernels()

with hardware.quick_import():
    import keras  # its backend reads the environment when it is imported
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from hemotune.errors import StudyError  # noqa: E402
from hemotune.files import new_file, new_folder, read_json, write_json  # noqa: E402
from hemotune.gpus import gpu_names  # noqa: E402
from hemotune.settings.experiment import Experiment, architecture  # noqa: E402
from hemotune.settings.reading import read_params, read_profile  # noqa: E402
from hemotune.settings.training import Training  # noqa: E402
from hemotune.training import resume  # noqa: E402
from hemotune.training.fit import EVALUATION_BATCH, fit, versions  # noqa: E402
from hemotune.training.fused_adam import adam  # noqa: E402
from hemotune.training.model import assemble, build_backbone, predict, score  # noqa: E402


def starting_model(folder, name, size, experiment, dropout, classes):
    """Return the study's model with the backbone's initial weights from `folder` and a fresh
    head.
    """
    backbone = build_backbone(name, size)
    weights = Path(folder) / "backbone.weights.h5"
    try:
        backbone.load_weights(weights)
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{weights}: does not hold {name}'s weights ({error}): run `dvc repro --force"
            f" backbone@{name}`"
        ) from None
    return assemble(backbone, name, experiment.layers, experiment.units, dropout, classes)


def in_float32(
    trained: keras.Model, name: str, size: int, experiment: Experiment, dropout: float, classes: int
) -> keras.Model:
    """Return the study's model with the weights of `trained`, computing in float32.

    In bfloat16 its answers would differ from device to device, and most processors only emulate it.
    """
    keras.config.set_dtype_policy("float32")
    model = assemble(
        build_backbone(name, size), name, experiment.layers, experiment.units, dropout, classes
    )
    model.set_weights(trained.get_weights())
    return model


def save_model(folder: Path, model: keras.Model, classes: list[str]) -> None:
    """Write into `folder` what others need to use the model, and nothing of its training.

    model.keras holds network, weights and preprocessing; model.json says which class each output is
    and how an image file becomes the input.
    """
    # A new model around the same layers is not compiled: no optimizer, no loss.
    keras.Model(model.inputs, model.outputs).save(folder / "model.keras")
    write_json(folder / "model.json", {"classes": classes, "image": read_json("data/images.json")})


def predictions(model, images, inventory, split, labels):
    """Return (DataFrame of path, split, truth, probability_CLASS; dict of part to loss and
    accuracy) for validation and test.
    """
    frames, scores = [], {}
    for part in ("validation", "test"):
        rows = np.array(split[part])
        probabilities = predict(model, images, rows, EVALUATION_BATCH)
        loss, accuracy = score(probabilities, labels[rows])
        scores[part] = {"loss": loss, "accuracy": accuracy, "images": len(rows)}
        frame = pd.DataFrame(
            {
                "path": inventory["path"].to_numpy()[rows],
                "split": part,
                "truth": inventory["class"].to_numpy()[rows],
            }
        )
        for index, name in enumerate(split["classes"]):
            frame[f"probability_{name}"] = probabilities[:, index]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True), scores


def run(experiment_name: str, protocol: str, backbone_name: str, repeat: int) -> None:
    """Train, measure and write one run of the study."""
    key = f"{experiment_name}-{protocol}-{backbone_name}-{repeat}"
    experiment, training = (
        read_params(f"experiments.{experiment_name}", Experiment),
        read_profile("training", Training),
    )
    seed = training.seed + repeat - 1
    rate = experiment.learning_rate * training.learning_rate_scale
    failure = Path(f".study/failures/{key}.json")
    failure.unlink(missing_ok=True)
    gpus, features = gpu_names(), hardware.read_cpu().features

    images = np.load("data/images.npy", mmap_mode="r")
    inventory = pd.read_parquet("data/inventory.parquet", columns=["path", "class"])
    split = read_json(f"data/splits/{protocol}.json")
    labels = (
        inventory["class"]
        .map({name: index for index, name in enumerate(split["classes"])})
        .to_numpy()
    )

    precision = hardware.choose_precision(training.precision, gpus, features)
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    device = gpus[0] if gpus else "CPU"
    size = images.shape[1]
    network = architecture(backbone_name, experiment.layers, experiment.units)
    print(
        f"{key}: {network}, learning rate {rate:g}, {size} px, {precision} on {device}", flush=True
    )

    design = backbone_name, size, experiment, training.dropout, len(split["classes"])
    model = starting_model(f"data/backbone/{backbone_name}", *design)
    model.compile(
        optimizer=adam(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    inputs = [
        f"data/splits/{protocol}.json",
        "data/inventory.parquet",
        f"data/backbone/{backbone_name}/backbone.weights.h5",
    ]
    setting = {
        "experiment": experiment.model_dump(),
        "training": training.model_dump(),
        "seed": seed,
        "precision": precision,
        "size": size,
    }
    # With others the epochs to come would not be the same
    setting |= {"threads": hardware.threads(), "versions": versions()}
    states = Path(f".study/resume/{key}")
    state = states / resume.fingerprint(setting, inputs)
    try:
        history = fit(
            model,
            images,
            labels,
            split["train"],
            split["validation"],
            training,
            rate,
            seed,
            "fine-tune",
            state,
            bool(gpus),
        )
    except StudyError as error:
        write_json(failure, {"reason": str(error)})
        raise
    if precision != "float32":
        model = in_float32(model, *design)
    table, scores = predictions(model, images, inventory, split, labels)

    last, made = history.iloc[-1], read_json(f"data/backbone/{backbone_name}/backbone.json")
    metrics = {
        "experiment": experiment_name,
        "protocol": protocol,
        "backbone": backbone_name,
        "repeat": repeat,
        "layers": experiment.layers,
        "units": experiment.units,
        "learning_rate": experiment.learning_rate,
        "learning_rate_applied": rate,
        "train": {
            "loss": float(last["loss"]),
            "accuracy": float(last["accuracy"]),
            "images": len(split["train"]),
        },
        **scores,
        "learning_time_seconds": float(history["seconds"].sum()),
        "epochs": training.epochs,
        "parameters": model.count_params(),
        "images_per_second": float(
            history["images_per_second"].iloc[1:].mean()
            if len(history) > 1
            else last["images_per_second"]
        ),
        "device": device,
        "processor": hardware.cpu_name(),
        "threads": hardware.threads(),
        "precision": precision,
        "versions": versions(),
        "pretraining": (
            {name: made[name] for name in ("precision", "versions")}
            if made["weights"] == "pretrain"
            else None
        ),
        "seed": seed,
    }
    with new_folder(f"data/models/{key}") as folder:
        save_model(folder, model, split["classes"])
    results = Path(f"data/results/{key}")
    with new_file(results / "predictions.parquet") as file:
        table.to_parquet(file, index=False)
    with new_file(results / "history.csv") as file:
        history.to_csv(file, index=False, float_format="%.6g")
    write_json(results / "metrics.json", metrics)
    resume.forget(states)
    print(
        f"{key}: test accuracy {scores['test']['accuracy']:.4f}, loss {scores['test']['loss']:.4f}",
        flush=True,
    )
