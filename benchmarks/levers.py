"""What each lever of training speed gives: the study's way of training, and the same without one
lever at a time.

    python -m benchmarks.levers [--backbone ResNet50] [--size 64] [--batch-size 32] [--steps 8]

Each way is measured in a process of its own. There are no goals; the rows show which levers are
worth their code.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from hemotune import hardware

# What is changed, and how the table names it.
WAYS = {
    "study": "as the study trains",
    "onednn": "oneDNN off, as TensorFlow sets it on CPUs without AVX-512",
    "adam": "Keras's Adam in place of the fused one",
    "build": "optimizer and metrics made by the first step",
    "evaluation": "evaluation in batches of 32",
    "execution": "8 steps in one execution",
    "import": "Keras imported with all that its wrappers load",
}
IMAGES = 512


def child(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure one way in this process; returns seconds of import, first execution and a step, and
    evaluated images/s.
    """
    started = time.monotonic()
    with hardware.without_native_log() if way == "import" else hardware.quick_import():
        import keras
    imported = time.monotonic() - started
    import numpy as np

    from hemotune.gpus import choose_device
    from hemotune.training import fit as training
    from hemotune.training.fused_adam import adam
    from hemotune.training.inputs import Batches
    from hemotune.training.model import Design, assemble, build_backbone
    from hemotune.training.observer import EVALUATION_BATCH, Observer

    random = np.random.default_rng(1)
    images = random.integers(0, 256, (IMAGES, options.size, options.size, 3), "uint8")
    labels = random.integers(0, 4, IMAGES)
    keras.config.set_dtype_policy(choose_device("auto").precision)
    design = Design(options.backbone, options.size, classes=4, layers=1, units=8, dropout=0.5)
    model = assemble(build_backbone(options.backbone, options.size), design)
    optimizer = keras.optimizers.Adam(1e-5) if way == "adam" else adam(1e-5)
    together = 8 if way == "execution" else 1
    model.compile(
        optimizer=optimizer,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=together,
    )
    if way != "build":
        training.build(model, labels[:1])

    def fit(steps: int) -> float:
        began = time.monotonic()
        rows = np.arange(steps * options.batch_size) % IMAGES
        model.fit(
            Batches(images, rows, options.batch_size, labels, whole=True), verbose=0, shuffle=False
        )
        return time.monotonic() - began

    first = fit(together)
    steps = fit(options.steps) / options.steps
    batch, observer = 32 if way == "evaluation" else EVALUATION_BATCH, Observer.of(model, images)
    observer.see(np.arange(batch), batch)
    began = time.monotonic()
    observer.see(np.arange(IMAGES), batch)
    return {
        "import": imported,
        "first": first,
        "step": steps,
        "evaluation": IMAGES / (time.monotonic() - began),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.levers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--backbone", default="ResNet50")
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="a multiple of 8")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        hardware.use_fast_kernels()
        print(json.dumps(child(options.way, options)))
        return 0
    print(
        f"{hardware.cpu_name()}, {options.backbone}, {options.size} px, batches of"
        f" {options.batch_size}\n"
    )
    print(
        "| way | import, s | first execution, s | step, ms | evaluation, images/s"
        " |\n|---|---|---|---|---|",
        flush=True,
    )
    for way, told in WAYS.items():
        environment = os.environ | ({"TF_ENABLE_ONEDNN_OPTS": "0"} if way == "onednn" else {})
        command = [sys.executable, "-m", "benchmarks.levers", *sys.argv[1:], "--way", way]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        figures = (
            f"{found['import']:.1f} | {found['first']:.1f} | {found['step'] * 1e3:.0f} |"
            f" {found['evaluation']:.0f}"
        )
        print(f"| {told} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
