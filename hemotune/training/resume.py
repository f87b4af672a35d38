"""The state of a fine-tune after its last finished epoch, so that a killed one goes on instead of
starting anew.

It lies outside DVC's outs, which DVC deletes before a stage runs:
.study/resume/KEY/HASH/epoch-N.npz. HASH covers everything the training depends on, so that changed
settings or data start anew. The last two epochs are kept: a damaged state costs one epoch.
"""

import hashlib
import json
import shutil
import sys
import zipfile

import numpy as np

from hemotune.files import new_file, sha256_of


def fingerprint(settings, files):
    """Return a hexadecimal hash of `settings` (plain JSON values) and of the bytes of `files`."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file in files:
        digest.update(sha256_of(file).encode())
    return digest.hexdigest()[:16]


def save(folder, model, history):
    """Write weights, optimizer and history after the epoch that `history` (list of dict, a row an
    epoch) ends with.
    """
    epoch = history[-1]["epoch"]
    arrays = {f"weight_{i:04}": value for i, value in enumerate(model.get_weights())}
    arrays |= {
        f"optimizer_{i:04}": np.asarray(variable)
        for i, variable in enumerate(model.optimizer.variables)
    }
    with new_file(folder / f"epoch-{epoch}.npz") as file:
        np.savez(file, history=json.dumps(history), **arrays)
    for old in states(folder)[2:]:
        old.unlink()


def restore(folder, model):
    """Set a compiled and built model to the newest whole state below `folder` and return its
    history; [] where there is none.

    A state that cannot be read is set aside with a warning, and the epoch before it is used.
    """
    for path in states(folder):
        try:
            with np.load(path) as arrays:
                history = json.loads(str(arrays["history"]))
                weights = [
                    arrays[name] for name in sorted(arrays.files) if name.startswith("weight_")
                ]
                optimizer = [
                    arrays[name] for name in sorted(arrays.files) if name.startswith("optimizer_")
                ]
            model.set_weights(weights)
            for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
                variable.assign(value)
            return history
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            path.replace(path.with_suffix(".damaged"))
            print(
                f"warning: {path} is damaged ({error}); set aside as {path.stem}.damaged",
                file=sys.stderr,
                flush=True,
            )
    return []


def states(folder):
    """Return the states below `folder`, the newest epoch first."""
    return sorted(
        folder.glob("epoch-*.npz"), key=lambda path: int(path.stem.split("-")[1]), reverse=True
    )


def forget(folder):
    """Remove every state of a fine-tune, those of earlier settings among them: it succeeded."""
    shutil.rmtree(folder, ignore_errors=True)
