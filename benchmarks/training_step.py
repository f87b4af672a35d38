"""A training step with the study's input against one with a constant batch: the goal is at most
1.02 on a processor, 1.05 on a GPU.

    python -m benchmarks.training_step [--backbone ResNet50] [--size 64] [--batch-size 32] [--steps
    20]

What differs is what the input costs: reading the rows of a batch from the memory-mapped array and
handing them over; on a GPU, which holds the images, picking them there.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence

from hemotune import hardware

hardware.use_fast_kernels()

with hardware.quick_import():
    import keras
import numpy as np  # noqa: E402

from benchmarks import print_row  # noqa: E402
from hemotune.gpus import choose_device  # noqa: E402
from hemotune.training.fused_adam import adam  # noqa: E402
from hemotune.training.inputs import (  # noqa: E402
    Batches,
    ImageArray,
    Integers,
    hold_images,
    taking_rows,
)
from hemotune.training.model import Design, assemble, build_backbone  # noqa: E402

IMAGES = 12_500
GOAL = {True: 1.05, False: 1.02}
ROUNDS = 5


class Constant(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Yield the same batch forever, from memory."""

    def __init__(self, batch: tuple[ImageArray] | tuple[ImageArray, Integers], steps: int) -> None:
        super().__init__()
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[ImageArray] | tuple[ImageArray, Integers]:
        return self.batch


def seconds(model: keras.Model, batches: keras.utils.PyDataset) -> float:
    started = time.perf_counter()
    model.fit(batches, verbose=0, shuffle=False)
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_step", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--backbone", default="ResNet50")
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="in each of the rounds")
    options = parser.parse_args(arguments)
    device = choose_device("auto")
    keras.config.set_dtype_policy(device.precision)
    random = np.random.default_rng(1)
    labels = random.integers(0, 4, IMAGES)
    design = Design(options.backbone, options.size, classes=4, layers=1, units=32, dropout=0.5)
    model = assemble(build_backbone(options.backbone, options.size), design)
    model.compile(
        optimizer=adam(1e-5), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        images: ImageArray = np.lib.format.open_memmap(
            file.name, "w+", "uint8", (IMAGES, options.size, options.size, 3)
        )
        for start in range(0, IMAGES, 1000):
            images[start : start + 1000] = random.integers(
                0, 256, images[start : start + 1000].shape, "uint8"
            )
        images = np.load(file.name, mmap_mode="r")
        rows = random.permutation(IMAGES)[: options.steps * options.batch_size]
        constant = Constant(Batches(images, rows, options.batch_size, labels)[0], options.steps)
        study = model
        if device.is_gpu:
            source, images = hold_images(images)
            study = taking_rows(source, model)
        real = Batches(images, rows, options.batch_size, labels, whole=True)
        seconds(model, constant), seconds(study, real)
        # In turns, so that a change of the machine's speed meets both.
        rounds = [(seconds(model, constant), seconds(study, real)) for _ in range(ROUNDS)]
    base, mine = (statistics.median(column) / options.steps for column in zip(*rounds, strict=True))
    ratio, goal = statistics.median(theirs / ours for ours, theirs in rounds), GOAL[device.is_gpu]
    what = f"training step, study's input / constant batch, {options.backbone}, {options.size} px"
    print_row(what, ratio, goal, f"{mine * 1e3:.0f} ms / {base * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
