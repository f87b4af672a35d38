"""The network as a training begins with it. Keras 3 API only."""

from pathlib import Path

import keras

from hemotune.errors import StudyError
from hemotune.training import averages
from hemotune.training.averages import BatchMoments
from hemotune.training.fit import Data
from hemotune.training.model import Design, assemble, build_backbone, freeze
from tasks.finetune.plan import Run


def starting_model(weights: Path, design: Design) -> keras.Model:
    """Return the study's model with initial weights in the backbone and a fresh head."""
    backbone = build_backbone(design.backbone, design.size)
    try:
        backbone.load_weights(weights)
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{weights}: does not hold {design.backbone}'s weights ({error}): run `dvc repro"
            f" --force backbone@{design.backbone}`"
        ) from None
    return assemble(backbone, design)


def refuse_what_has_no_use(model: keras.Model, data: Data, run: Run) -> None:
    """Raise StudyError if there is nothing to validate by, or a setting changes nothing."""
    if not len(data.validation):
        raise StudyError(
            f"{run.split_file}: no validation image, by which epochs are judged and chosen: raise"
            " split.validation in the profile"
        )
    if run.experiment.averages and not averages.normalizations(model):
        raise StudyError(
            f"params.yaml: experiments.{run.name}.averages: {run.backbone} has no"
            " BatchNormalization: remove the setting"
        )


def freeze_layers(model: keras.Model, data: Data, run: Run) -> None:
    """Freeze what the settings name.

    Averages of frozen layers stay as they are in training; those that are recomputed are so here,
    from training images, for the initial weights belong to others.

    Raises:
        StudyError: the backbone has no such layer.
    """
    training = run.training
    frozen_norm = training.batch_norm == "frozen"
    if training.freeze == "none" and not frozen_norm:
        return
    if training.averages == "recomputed":
        moments, batch = BatchMoments(model), min(training.batch_size, len(data.train))
        new = averages.recompute(moments, data.images, data.train, batch, [run.seed, 0, 1])
        averages.write(model, new)
    try:
        freeze(model, training.freeze, frozen_norm)
    except StudyError as error:
        own = run.experiment.freeze is not None
        place = f"params.yaml: experiments.{run.name}" if own else "profile: training"
        raise StudyError(f"{place}.freeze: {error}") from None
