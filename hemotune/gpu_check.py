"""What Keras's backend sees of the GPUs, and whether each of them computes: python -m
hemotune.gpu_check.

It is a process of its own: a driver that fails may end the process in which it does.
"""

import os
import sys

from hemotune import hardware
from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.gpus import ON_DEMAND, gpu_names, usable_gpus


def compute(name: str, number: int) -> None:
    """Multiply two matrices on the GPU with this number.

    Raises:
        StudyError: that fails, or the product is wrong.
    """
    import keras

    try:
        with keras.device(f"gpu:{number}"):
            ones = keras.ops.ones((256, 256))
            total = float(keras.ops.sum(keras.ops.matmul(ones, ones)))
    # Each backend has exceptions of its own, of which it publishes no common base.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StudyError(
            f"{name} (GPU {number}) is seen but does not compute: {reason}; look at `nvidia-smi`,"
            " and update the driver or free its memory"
        ) from None
    if total != 256**3:
        raise StudyError(f"{name} (GPU {number}) multiplies wrongly: {total:g} for {256**3}")


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    hardware.use_fast_kernels()
    os.environ.update(ON_DEMAND)  # a study may be running on these GPUs
    with hardware.quick_import():
        import keras
    names, backend = gpu_names(), keras.backend.backend()
    usable = usable_gpus()
    if len(names) < len(usable):
        raise StudyError(
            f"{backend} sees {len(names)} of the {len(usable)} GPUs that it may use"
            f" ({', '.join(usable)}): {', '.join(names)}; look at `nvidia-smi`, or name those that"
            " work in CUDA_VISIBLE_DEVICES"
        )
    for number, name in enumerate(names):
        compute(name, number)
    seen = f"{', '.join(names)}: computes" if names else "no GPU, as expected"
    print(f"{backend} sees {seen}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
