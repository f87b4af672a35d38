"""What is measured of a fine-tune beside its training and validation, against the same fine-tune
without it: the goal is at most 1.05.

    python -m benchmarks.health_cost [--backbone ResNet50] [--size 64] [--batch-size 32]

A fine-tune of 20 epochs with 8,000 training and 2,000 validation images is composed from its parts,
which are measured in turns in one process: a training step, the prediction of images, and averages
of BatchNormalization recomputed. To these come one more function to trace, the averages in each
epoch and three times after the last, the predictions of all training images, and of the validation
images three times.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from hemotune import hardware

hardware.use_fast_kernels()

with hardware.quick_import():
    import keras
import numpy as np  # noqa: E402

from benchmarks import print_row  # noqa: E402
from hemotune.gpus import choose_device  # noqa: E402
from hemotune.training.averages import read, write  # noqa: E402
from hemotune.training.fit import Data, Plan, begin  # noqa: E402
from hemotune.training.fused_adam import adam  # noqa: E402
from hemotune.training.inputs import Batches  # noqa: E402
from hemotune.training.model import Design, assemble, build_backbone  # noqa: E402

EPOCHS, TRAIN, VALIDATION = 20, 8_000, 2_000
STEPS, SEEN, ROUNDS = 10, 512, 3
GOAL = 1.05


def seconds(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.health_cost", description=__doc__.split(":")[0]
    )
    parser.add_argument("--backbone", default="ResNet50")
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args(arguments)
    device, size = choose_device("auto"), options.size
    keras.config.set_dtype_policy(device.precision)
    random, count = np.random.default_rng(1), max(SEEN, STEPS * options.batch_size)
    images = random.integers(0, 256, (count, size, size, 3), "uint8")
    data = Data(images, random.integers(0, 4, count), np.arange(count), np.arange(SEEN))
    design = Design(options.backbone, size, classes=4, layers=1, units=32, dropout=0.5)
    network = assemble(build_backbone(options.backbone, size), design)
    network.compile(adam(1e-5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    plan = Plan("fine-tune", 1, options.batch_size, 1e-5, 1, device.is_gpu)
    begun = begin(network, data, plan, None)
    batches = Batches(
        begun.data.images, data.train[: STEPS * options.batch_size], options.batch_size, data.labels
    )

    def step() -> None:
        begun.trainer.fit(batches, verbose=0, shuffle=False)

    def see() -> None:
        begun.observer.see(data.validation)

    def recompute() -> None:
        own = read(network)
        begun.recompute(1)
        write(network, own)

    first = [seconds(action) for action in (step, see, recompute)]
    # In turns, so that a change of the machine's speed meets all.
    rounds = [[seconds(action) for action in (step, see, recompute)] for _ in range(ROUNDS)]
    a_step, seen, averages = map(statistics.median, zip(*rounds, strict=True))
    a_step, seen, traced = a_step / STEPS, seen / SEEN, first[2] - averages
    steps = TRAIN // options.batch_size
    plain = EPOCHS * (steps * a_step + VALIDATION * seen) + first[0] + first[1]
    added = traced + (EPOCHS + 3) * averages + (TRAIN + 3 * VALIDATION) * seen
    what = f"fine-tune with its measurements / without, {options.backbone}, {size} px"
    print_row(what, (plain + added) / plain, GOAL, f"{plain + added:.0f} s / {plain:.0f} s")


if __name__ == "__main__":
    main()
