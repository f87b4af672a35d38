"""How many images a second this machine trains on, estimated in a second and without Keras.

The constants are rough, of MobileNet at batches of 32. Those of a CPU come from runs beside other
work (docs/own-images.md); that of a GPU is a guess.
"""

import time
from dataclasses import dataclass

import numpy as np

from hemotune.gpus import usable_gpus
from hemotune.progress import cores

# Of one image's training step: 3 times the 1.14 GFLOP of a prediction at 224 px
GIGAFLOP = 3 * 1.14
EFFICIENCY = 0.2  # of what a product of matrices reaches: depthwise convolutions wait for memory
OVERHEAD = 0.002  # seconds of an image, whatever its size
GPU_RATE = 4000.0  # images/s at 64 px, of any GPU: input and small kernels are the limit


@dataclass(frozen=True)
class Machine:
    name: str  # such as "2 cores" or "1 GPU"
    gigaflops: float  # of a product of matrices; 0 for a GPU

    def rate_at(self, size: int) -> float:
        """Return about how many images of `size` px it trains on in a second."""
        share = (size / 224) ** 2
        if not self.gigaflops:
            return GPU_RATE / max(1.0, (size / 64) ** 2)
        return 1 / (OVERHEAD + GIGAFLOP * share / (EFFICIENCY * self.gigaflops))


def this_machine() -> Machine:
    """Return what fine-tunes run on: the GPUs, or the cores."""
    if gpus := usable_gpus(warn=lambda line: None):
        return Machine(f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}", 0.0)
    return Machine(f"{cores()} cores", measured_gigaflops())


def measured_gigaflops() -> float:
    """Return the float32 operations of a product of matrices in a nanosecond, the best of five."""
    side, best = 1024, float("inf")
    matrix = np.ones((side, side), np.float32)
    for _ in range(5):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best / 1e9
