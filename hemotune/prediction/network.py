"""A trained network that was saved, and what it makes of images. Keras 3 API only."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hemotune import hardware

hardware.use_fast_kernels()

with hardware.quick_import():
    import keras
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from hemotune.errors import StudyError  # noqa: E402
from hemotune.training.observer import Observer, Seen  # noqa: E402


@dataclass(frozen=True)
class Network:
    model: keras.Model  # from uint8 (batch, size, size, 3) to probabilities (batch, classes)
    observer: Observer

    def see(self, images: npt.NDArray[np.uint8], batch_size: int) -> Seen:
        """Show images (n, size, size, 3) to the network."""
        return Observer(self.observer.model, images).see(np.arange(len(images)), batch_size)


def load(path: Path, classes: Sequence[str], size: int) -> Network:
    """Load a saved network.

    Raises:
        StudyError: the file is no model, or not the one that model.json beside it describes.
    """
    try:
        with hardware.without_native_log():  # now TensorFlow looks for GPUs
            model = keras.models.load_model(path, compile=False)
    except Exception as error:  # zipfile, h5py and Keras each have their own
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise StudyError(
            f"{path}: cannot be loaded as a model ({reason}): name a model.keras of a study"
        ) from None
    found = (model.inputs[0].shape, model.outputs[0].shape)
    expected = ((None, size, size, 3), (None, len(classes)))
    if found != expected:
        raise StudyError(
            f"{path}: takes {found[0]} and gives {found[1]}, but model.json beside it says"
            f" {expected[0]} and {expected[1]}: put both files of one model there"
        )
    return Network(model, Observer.of(model, np.zeros((0, size, size, 3), np.uint8)))
