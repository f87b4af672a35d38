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
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np

from hemotune.files import new_file, sha256_of
from hemotune.training.records import Epoch

# This package: with other code the remaining epochs would not be the same.
CODE = sorted(Path(__file__).parent.glob("*.py"))


def fingerprint(settings: dict[str, object], files: Iterable[Path]) -> str:
    """Return a hexadecimal hash of `settings` (JSON values) and the bytes of `files` and CODE."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file in [*CODE, *files]:
        digest.update(sha256_of(file).encode())
    return digest.hexdigest()[:16]


def save(folder: Path, model: keras.Model, history: list[Epoch]) -> None:
    """Write weights, optimizer and history after the last epoch of `history`."""
    arrays = {f"weight_{i:04}": value for i, value in enumerate(model.get_weights())}
    arrays |= {
        f"optimizer_{i:04}": np.asarray(variable)
        for i, variable in enumerate(model.optimizer.variables)
    }
    rows = json.dumps([asdict(epoch) for epoch in history])
    with new_file(folder / f"epoch-{history[-1].epoch}.npz") as file:
        np.savez(file, history=rows, **arrays)
    for old in states(folder)[2:]:
        old.unlink()


def restore(folder: Path, model: keras.Model) -> list[Epoch]:
    """Set a compiled and built model to the newest intact state in `folder`.

    A damaged state is renamed with a warning, and the one before it is used.

    Returns:
        The epochs that are finished; none if there is no state.
    """
    for path in states(folder):
        try:
            with np.load(path) as arrays:
                history = [Epoch(**row) for row in json.loads(str(arrays["history"]))]
                weights, optimizer = (
                    [arrays[name] for name in sorted(arrays.files) if name.startswith(prefix)]
                    for prefix in ("weight_", "optimizer_")
                )
            model.set_weights(weights)
            for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
                variable.assign(value)
            return history
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            path.replace(path.with_suffix(".damaged"))
            print(
                f"warning: {path} is damaged ({error}); renamed to {path.stem}.damaged",
                file=sys.stderr,
                flush=True,
            )
    return []


def states(folder: Path) -> list[Path]:
    """Return the states in `folder`, the newest epoch first."""
    return sorted(
        folder.glob("epoch-*.npz"), key=lambda path: int(path.stem.split("-")[1]), reverse=True
    )


def forget(folder: Path) -> None:
    """Delete every state in or below `folder`, those of earlier settings too."""
    shutil.rmtree(folder, ignore_errors=True)
