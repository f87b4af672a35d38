"""The GPUs that the driver lists, and those that Keras's backend sees.

A GPU that may be used but that the backend does not see is an error: otherwise minutes of training
would silently become a day on the CPU.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

from hemotune.errors import StudyError
from hemotune.hardware import choose_precision, read_cpu, without_native_log

# As CUDA_VISIBLE_DEVICES takes it: an index, or the UUID of a GPU or of a part of one (MIG).
GPU_ID = r"[0-9]+|(?:GPU|MIG)-[0-9A-Za-z/-]+"
# Bytes of images that a training holds in the memory of its GPU. The original study's take 1.9 GB
# at 224 px, a quarter of the memory of a small GPU; larger sets are read from the memory-mapped
# array.
HELD_AT_MOST = 4 << 30

TENSORFLOW = """
import tensorflow as tf
print("devices:", tf.config.list_physical_devices())
"""
JAX = """
import jax
print("devices:", jax.devices(), "with jax_platforms =", jax.config.jax_platforms)
"""


@dataclass(frozen=True)
class Device:
    """What a network is trained on."""

    name: str  # the GPU's, or CPU
    is_gpu: bool
    precision: str  # Keras's dtype policy


@dataclass(frozen=True)
class Backend:
    name: str
    program: str  # Python code that prints which devices the backend sees


BACKENDS = {
    "tensorflow": Backend("TensorFlow", TENSORFLOW),
    "jax": Backend("JAX", JAX),
}
# Makes TensorFlow name each library that it cannot load.
VERBOSE = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
# Keep both backends from reserving all of the GPU's memory when they start.
ON_DEMAND = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def usable_gpus(warn: Callable[[str], None] = print) -> list[str]:
    """Return the ids of the GPUs that this process may use, without loading a backend.

    CUDA_VISIBLE_DEVICES names them; if it is not set, they are all that nvidia-smi lists. As in
    CUDA, an empty value hides all GPUs, and an invalid id such as -1 hides those after it.

    Args:
        warn: called with one line if nvidia-smi fails.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return listed_gpus(warn)
    return list(takewhile(re.compile(GPU_ID).fullmatch, map(str.strip, visible.split(","))))


def listed_gpus(warn: Callable[[str], None]) -> list[str]:
    """Return the indices of the GPUs that nvidia-smi lists; none where there is no nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        status, output = run(query, timeout=30)
    except FileNotFoundError:
        return []
    except (OSError, subprocess.TimeoutExpired) as error:
        warn(f"nvidia-smi fails: {error}; GPUs are not used")
        return []
    lines = [line for line in map(str.strip, output.splitlines()) if line]
    gpus = [line for line in lines if line.isdecimal()]
    if status or not gpus:
        reason = next((line for line in lines if not line.isdecimal()), "no output")
        warn(
            f"nvidia-smi fails: exit status {status}, {reason}; GPUs that it does not list are not"
            " used"
        )
    return gpus


def choose_device(precision: str) -> Device:
    """Return the first GPU that Keras's backend sees, or else the CPU.

    Args:
        precision: the profile's setting, `auto` or a dtype policy.

    Raises:
        StudyError: as in `gpu_names`.
    """
    gpus = gpu_names()
    policy = choose_precision(precision, gpus, read_cpu().features)
    return Device(gpus[0] if gpus else "CPU", bool(gpus), policy)


def gpu_names() -> list[str]:
    """Return the names of the GPUs that Keras's backend sees.

    Raises:
        StudyError: it sees none although this process may use one, or it is neither TensorFlow nor
            JAX.
    """
    import keras

    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise StudyError(f"KERAS_BACKEND={backend} is not supported: set it to tensorflow or jax")
    with without_native_log():
        names = seen_by_tensorflow() if backend == "tensorflow" else seen_by_jax()
    if not names and (usable := usable_gpus()):
        raise StudyError(explain_unseen(usable, BACKENDS[backend]))
    return names


def explain_unseen(usable: list[str], backend: Backend) -> str:
    """Return why `backend` sees none of the `usable` GPUs, and the fix."""
    listed = listed_gpus(warn=lambda _: None)
    if unknown := [gpu for gpu in usable if listed and gpu.isdecimal() and gpu not in listed]:
        return (
            f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']}: there is no GPU"
            f" {unknown[0]}; nvidia-smi lists {', '.join(listed)}: name some of these, or set it to"
            " -1 to use the CPU"
        )
    return (
        f"{backend.name} sees none of the GPUs that it may use ({', '.join(usable)}). It reports:"
        f" {report_of(backend)}. To use the GPU, install the CUDA libraries: make setup"
        f" BACKEND={backend.name.lower()} (docs/gpus.md). To use the CPU, give hemotune run"
        " --slots cpu or set CUDA_VISIBLE_DEVICES=-1"
    )


def seen_by_tensorflow() -> list[str]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details
    return [details(gpu).get("device_name", gpu.name) for gpu in gpus]


def seen_by_jax() -> list[str]:
    import jax

    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        reason = " ".join(str(error).split()) or "it is not installed"
        raise StudyError(
            f"JAX_PLATFORMS={platforms}: JAX cannot start this platform ({reason}): "
            "install it (docs/gpus.md), or unset the variable"
        ) from None
    return [device.device_kind for device in devices if device.platform == "gpu"]


def report_of(backend: Backend) -> str:
    """Return what a backend logs about GPUs, in a new process that does not hide its log."""
    _, output = run([sys.executable, "-c", backend.program], environment=os.environ | VERBOSE)
    # Without the time and place at which a line of the log begins, and the long path that ends it.
    prefix_or_path = re.compile(r"^.*?\.cc:\d+\] |; LD_LIBRARY_PATH.*|\.$")
    about_gpus = re.compile(r"(?!\s)(.*(cuda|gpu|Error:)|devices:)", re.IGNORECASE)
    lines = (prefix_or_path.sub("", line) for line in output.splitlines())
    return " | ".join(dict.fromkeys(line for line in lines if about_gpus.match(line)))


def run(
    command: list[str], timeout: float | None = None, environment: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run a command for at most `timeout` seconds; return its exit status and its output."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        env=environment,
    )
    return done.returncode, done.stdout
