"""What the hardware decides: kernels, precision, and the names written into the results.

Import this module and call `use_fast_kernels()` before Keras: TensorFlow reads its environment when
it is imported.
"""

import contextlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hemotune.progress import cores

# Features of /proc/cpuinfo that say that the processor multiplies bfloat16 itself.
NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def use_fast_kernels():
    """Turn oneDNN on: TensorFlow does so by itself on newer processors only, and AVX2 ones train
    2.4 times faster with it.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@contextlib.contextmanager
def without_native_log():
    """Send what TensorFlow's C++ code writes to the terminal nowhere.

    While it is loaded and looks for GPUs it logs a dozen lines, "failed call to cuInit" on every
    machine without one, before its own log level is read. Python's exceptions are not touched.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def keras_defaults() -> Iterator[None]:
    """Import Keras within this block with its own defaults, whatever the user's keras.json sets.

    Another floatx or image_data_format there would change the study or break it; Keras reads the
    file from KERAS_HOME, once, when it is imported.
    """
    own = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory() as empty:
        os.environ["KERAS_HOME"] = empty
        try:
            yield
        finally:
            del os.environ["KERAS_HOME"]
            if own is not None:
                os.environ["KERAS_HOME"] = own


@contextlib.contextmanager
def quick_import():
    """Import Keras within this block: quietly, and without what it and TensorFlow load for wrappers
    that nobody here uses.

    scikit-learn and matplotlib are a quarter of the 20 s that it takes on a slow processor, once
    for every fine-tune.
    """
    wrapped = {"sklearn", "matplotlib", "jax"} - {os.environ.get("KERAS_BACKEND")}
    unused = {name: None for name in wrapped if name not in sys.modules}
    sys.modules.update(unused)  # None makes an import fail, and Keras does without
    try:
        with without_native_log(), keras_defaults():
            yield
    finally:
        for name in unused:
            del sys.modules[name]


def processor():
    """Return (name, set of features) of the processor as the kernel tells them, less what oneDNN
    was told not to use.
    """
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), set()
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    features = set(fields.get("flags", fields.get("Features", "")).split())
    # OneDNN's own variable, with names such as AVX2 and AVX512_CORE_BF16
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if not any(name in most for name in ("ALL", "DEFAULT", "BF16", "FP16", "AMX", "AVX10")):
        features -= NATIVE_BFLOAT16
    return fields.get("model name", platform.machine()), features


def threads():
    """Return how many threads an operation may use: with another number sums round otherwise, and
    training amplifies it.
    """
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or cores())


def processor_name():
    """Return the processor's name with its widest vector instructions, `AMD EPYC (2 cores,
    avx2)`.
    """
    name, features = processor()
    widest = next(
        (f for f in ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "avx") if f in features),
        platform.machine(),
    )
    return f"{name} ({cores()} cores, {widest})"


def choose_precision(setting, gpus, features):
    """Return Keras's dtype policy for the profile's `training.precision`.

    `auto` is mixed_bfloat16 on a GPU and on processors with native bfloat16; elsewhere bfloat16 is
    emulated, three to seven times slower than float32.
    """
    if setting != "auto":
        return setting
    return "mixed_bfloat16" if gpus or NATIVE_BFLOAT16 & features else "float32"
