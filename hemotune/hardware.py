"""What depends on the hardware: kernels, precision, and the names written into the results.

Import this module and call `use_fast_kernels()` before Keras: TensorFlow reads its environment when
it is imported.
"""

import contextlib
import ctypes
import gc
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from hemotune.paths import STATE
from hemotune.progress import cores

# Features in /proc/cpuinfo of CPUs with bfloat16 multiplication in hardware.
NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})

# Options of glibc's mallopt, from its malloc.h: the size of free memory at the top of the heap that
# is handed back, the number of blocks that lie outside the heap, and that of heaps.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


@dataclass(frozen=True)
class Cpu:
    name: str  # such as "AMD EPYC"
    features: frozenset[str]  # as in /proc/cpuinfo, such as "avx2"


def use_fast_kernels() -> None:
    """Choose Keras's backend, turn oneDNN on, and keep freed memory.

    TensorFlow's default is on for newer CPUs only; CPUs with AVX2 train 2.4 times faster with it.
    """
    keep_freed_memory()
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = backend_name()
    # JAX keeps compiled code there: the first step then takes 12 s and not 72 s.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((STATE / "jax").absolute()))


def backend_name() -> str:
    """Return Keras's backend: KERAS_BACKEND, or the one whose CUDA libraries setup.sh installed."""
    installed = Path(sys.prefix, "cuda")
    with_cuda = installed.read_text().strip() if installed.exists() else ""
    return os.environ.get("KERAS_BACKEND") or with_cuda or "tensorflow"


def keep_freed_memory() -> None:
    """Let the C library keep large blocks that are freed, for the next allocation.

    By default glibc hands them back to the kernel, which must clear each page that is taken again:
    every training step does this with the gradients, and on a CPU it takes a quarter of the step.
    Without glibc nothing changes.
    """
    with contextlib.suppress(AttributeError, OSError):
        set_option = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_ARENA_MAX, 1)):
            set_option(option, value)


@contextlib.contextmanager
def without_native_log() -> Iterator[None]:
    """Discard what C++ code writes to standard error within this block.

    While TensorFlow loads and looks for GPUs, it logs a dozen lines before it reads its own log
    level, such as "failed call to cuInit" on every machine without a GPU. Python's exceptions are
    not affected.
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
    """Import Keras within this block with its own defaults, not those of the user's keras.json.

    Another floatx or image_data_format there would change the study or break it. Keras reads the
    file from KERAS_HOME once, when it is imported.
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
def quick_import() -> Iterator[None]:
    """Import Keras within this block without a log and without the libraries that it only wraps.

    scikit-learn and matplotlib would take a quarter of the 20 s that the import of Keras takes on a
    slow CPU, in every fine-tune. Nothing that an import makes is garbage: to search half a million
    objects for it, again and again, would take a fifth of the rest.
    """
    wrapped = {"sklearn", "matplotlib", "jax"} - {os.environ.get("KERAS_BACKEND")}
    unused = [name for name in wrapped if name not in sys.modules]
    for name in unused:
        # Makes an import of it fail; Keras then does without.
        sys.modules[name] = None  # type: ignore[assignment]  # documented, but not in typeshed
    try:
        with without_native_log(), keras_defaults(), no_search_for_garbage():
            yield
    finally:
        for name in unused:
            del sys.modules[name]


@contextlib.contextmanager
def no_search_for_garbage() -> Iterator[None]:
    """Keep Python from searching what is made within this block, now and later, for garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


def read_cpu() -> Cpu:
    """Return the CPU that the kernel reports, without the features that oneDNN must not use."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return Cpu(platform.processor() or platform.machine(), frozenset())
    pairs = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in pairs}
    features = frozenset(fields.get("flags", fields.get("Features", "")).split())
    # oneDNN's own variable, with names such as AVX2 and AVX512_CORE_BF16
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if not any(name in most for name in ("ALL", "DEFAULT", "BF16", "FP16", "AMX", "AVX10")):
        features -= NATIVE_BFLOAT16
    return Cpu(fields.get("model name", platform.machine()), features)


def cpu_name() -> str:
    """Return the CPU's name and widest vector instructions, `AMD EPYC (2 cores, avx2)`."""
    cpu = read_cpu()
    widest = next(
        (f for f in ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "avx") if f in cpu.features),
        platform.machine(),
    )
    return f"{cpu.name} ({cores()} cores, {widest})"


def threads() -> int:
    """Return how many threads one operation may use.

    Another number rounds sums differently, and training amplifies the difference.
    """
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or cores())


def choose_precision(setting: str, gpus: Sequence[str], features: Set[str]) -> str:
    """Return Keras's dtype policy for the `precision` of a profile.

    `auto` is mixed_bfloat16 on GPUs and on CPUs with native bfloat16. Elsewhere bfloat16 is
    emulated and three to seven times slower than float32.
    """
    if setting != "auto":
        return setting
    return "mixed_bfloat16" if gpus or NATIVE_BFLOAT16 & features else "float32"
