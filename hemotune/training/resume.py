"""The state of a training after its last finished epoch, from which a killed training resumes.

It lies outside DVC's outs, which DVC deletes before a stage runs:
.study/resume/KEY/HASH/epoch-N.npz. HASH covers all that the training depends on: with changed
settings, data or code it starts again. The last two epochs are kept: a damaged state costs one.
"""

import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np

from hemotune.files import new_file, sha256_of
from hemotune.training.inputs import Floats, Integers
from hemotune.training.records import Epoch

# This package: with other code the remaining epochs would not be the same.
CODE = sorted(Path(__file__).parent.glob("*.py"))


LAST_EPOCHS = 5


@dataclass
class Course:
    """What a training has come to after its last finished epoch."""

    history: list[Epoch] = field(default_factory=list)
    # The class predicted for each validation image (n,) after each of the last LAST_EPOCHS epochs
    predicted: list[Integers] = field(default_factory=list)
    best_weights: list[Floats] = field(default_factory=list)  # as after the epoch `best`

    @property
    def best(self) -> Epoch:
        """The first of the epochs with the lowest validation loss."""
        return min(self.history, key=lambda epoch: epoch.validation_loss)

    def add(self, epoch: Epoch, predicted: Integers, network: keras.Model) -> None:
        """Add a finished epoch; the network has its weights."""
        self.history.append(epoch)
        self.predicted = [*self.predicted, predicted][-LAST_EPOCHS:]
        if self.best is epoch:
            self.best_weights = copy_of_weights(network)


def copy_of_weights(network: keras.Model) -> list[Floats]:
    """Return the weights of a network; training it further does not change the copy."""
    return [np.array(value) for value in network.get_weights()]


def fingerprint(settings: dict[str, object], files: Iterable[Path]) -> str:
    """Return a hexadecimal hash of `settings` (JSON values) and the bytes of `files` and CODE."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file in [*CODE, *files]:
        digest.update(sha256_of(file).encode())
    return digest.hexdigest()[:16]


def save(folder: Path, network: keras.Model, course: Course) -> None:
    """Write the course of a training, with weights and optimizer after its last epoch."""
    arrays = {f"weight_{i:04}": value for i, value in enumerate(network.get_weights())}
    arrays |= {
        f"optimizer_{i:04}": np.asarray(variable)
        for i, variable in enumerate(network.optimizer.variables)
    }
    last = course.history[-1]
    if course.best is not last:
        arrays |= {f"best_{i:04}": value for i, value in enumerate(course.best_weights)}
    arrays["predicted"] = np.stack(course.predicted)
    rows = json.dumps([asdict(epoch) for epoch in course.history])
    with new_file(folder / f"epoch-{last.epoch}.npz") as file:
        np.savez(file, history=rows, **arrays)
    for old in states(folder)[2:]:
        old.unlink()


def restore(folder: Path, network: keras.Model) -> Course:
    """Set a compiled and built network to the newest intact state in `folder`.

    A damaged state is renamed with a warning, and the one before it is used.

    Returns:
        The course up to that state; without epochs if there is none.
    """
    for path in states(folder):
        try:
            with np.load(path) as arrays:
                history = [Epoch(**row) for row in json.loads(str(arrays["history"]))]
                predicted = list(arrays["predicted"])
                weights, optimizer, best = (
                    [arrays[name] for name in sorted(arrays.files) if name.startswith(prefix)]
                    for prefix in ("weight_", "optimizer_", "best_")
                )
            network.set_weights(weights)
            for variable, value in zip(network.optimizer.variables, optimizer, strict=True):
                variable.assign(value)
            return Course(history, predicted, best or weights)
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            path.replace(path.with_suffix(".damaged"))
            print(
                f"warning: {path} is damaged ({error}); renamed to {path.stem}.damaged",
                file=sys.stderr,
                flush=True,
            )
    return Course()


def states(folder: Path) -> list[Path]:
    """Return the states in `folder`, the newest epoch first."""
    return sorted(
        folder.glob("epoch-*.npz"), key=lambda path: int(path.stem.split("-")[1]), reverse=True
    )


def forget(folder: Path) -> None:
    """Delete every state in or below `folder`, those of earlier settings too."""
    shutil.rmtree(folder, ignore_errors=True)
