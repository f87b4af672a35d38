"""`hemotune doctor`: what a run would find on this machine, and what is wrong with it."""

import contextlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from flows import gpu_sharing
from flows.gpu_sharing import Gpu
from flows.slots import CPU, default_devices, name_slots
from hemotune.errors import StudyError
from hemotune.gpu_memory import GB
from hemotune.gpus import BACKENDS, usable_gpus
from hemotune.hardware import (
    NATIVE_BFLOAT16,
    backend_name,
    choose_precision,
    cpu_name,
    read_cpu,
)
from hemotune.kaggle_json import kaggle_json
from hemotune.settings.reading import read_profile
from hemotune.settings.training import Training

PYTHONS = [(3, 11), (3, 12), (3, 13)]
DISK = 5 * GB  # the real images, their copies in DVC's cache, and seven models
MEMORY = 2 * GB  # of a fine-tune of ResNet50
BACKEND_IMPORT = 180  # seconds; one that takes longer hangs


@dataclass
class Finding:
    """What was found of one thing; the problems are one line each and name the fix."""

    value: str
    problems: list[str] = field(default_factory=list)


def examine() -> int:
    """Print all findings; return the exit status, 1 if something is wrong."""
    wrong = 0
    for name, finding in findings():
        wrong += len(finding.problems)
        print(f"{name:<12} {finding.value}")
        for problem in finding.problems:
            print(f"{'':12} wrong: {problem}")
        sys.stdout.flush()
    print(f"\n{wrong} problem{'s'[: wrong != 1]}" if wrong else "\nnothing is wrong")
    return 1 if wrong else 0


def findings() -> Iterator[tuple[str, Finding]]:
    """Yield what was found of each thing, under its name."""
    # Asked once for all findings: on some machines, nvidia-smi takes a second.
    driver: list[str] = []
    gpus = gpu_sharing.read_gpus(driver.append)
    usable = usable_gpus((lambda _: None) if driver else driver.append)
    yield "Python", find_python()
    yield "backend", find_backend()
    yield "GPUs", find_gpus(gpus, usable, driver)
    yield "precision", find_precision(usable)
    slots, why = slots_of(usable, gpus)
    yield "slots", Finding(", ".join(slots) + why)
    yield "disk", find_disk()
    yield "memory", find_memory(len(slots))
    yield "Kaggle", find_kaggle_token()
    yield "DVC remote", find_remote()
    yield "check", find_view()


def find_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    finding = Finding(f"{version} ({sys.executable})")
    if sys.version_info[:2] not in PYTHONS:
        finding.problems.append("use 3.11, 3.12 or 3.13: make setup PYTHON=python3.12")
    return finding


def version_of(package: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def find_backend() -> Finding:
    """Find the packages; whether they can use a GPU is what `find_view` finds."""
    name = backend_name()
    if name not in BACKENDS:
        return Finding(
            f"KERAS_BACKEND={name}", ["it is not supported: set it to tensorflow or jax"]
        )
    packages = {package: version_of(package) for package in (name, "keras")}
    finding = Finding(", ".join(f"{k} {v or 'is not installed'}" for k, v in packages.items()))
    if None in packages.values():
        finding.problems.append(f"install it: make setup BACKEND={name}")
    return finding


def find_gpus(gpus: list[Gpu], usable: list[str], problems: list[str]) -> Finding:
    """Compare what nvidia-smi describes with what CUDA_VISIBLE_DEVICES leaves.

    Args:
        problems: of nvidia-smi.
    """
    listed = [
        f"{gpu.index}: {gpu.name}, {gpu.memory / GB:.0f} GB, {gpu.used / GB:.0f} used"
        for gpu in gpus
    ]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = {name for gpu in gpus for name in (gpu.index, gpu.uuid)}
    unknown = [
        f"CUDA_VISIBLE_DEVICES={visible}: there is no GPU {name}: name one of those above, or unset"
        " it"
        for name in usable
        if visible is not None and name not in known and not name.startswith("MIG-")
    ]
    hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
    return Finding(("; ".join(listed) or "nvidia-smi lists none") + hidden, problems + unknown)


def find_precision(gpus: list[str]) -> Finding:
    try:
        training: Training = read_profile("training", Training)
    except StudyError as error:
        return Finding("not known", str(error).splitlines())
    features = read_cpu().features
    policy = choose_precision(training.precision, gpus, features)
    finding = Finding(f"{policy} (the profile says {training.precision}); {cpu_name()}")
    if policy != "float32" and not gpus and not NATIVE_BFLOAT16 & features:
        finding.problems.append(
            f"this processor emulates {policy}, which is three to seven times slower: set"
            " training.precision to auto"
        )
    return finding


def slots_of(usable: list[str], gpus: list[Gpu]) -> tuple[list[str], str]:
    """Return the names of the slots that a run would take, and why there are so many."""
    devices = default_devices(usable)
    if CPU in devices:
        return name_slots(devices), ""
    sharing = gpu_sharing.share(devices, gpus)
    why = f" (per_gpu: auto takes {sharing.per_device}: {sharing.why})"
    return name_slots(devices, sharing.per_device), why


def find_disk() -> Finding:
    free = shutil.disk_usage(".").free
    finding = Finding(f"{free / GB:.0f} GB free in this folder")
    if free < DISK:
        finding.problems.append(f"free some space: the real study needs {DISK / GB:.0f} GB")
    return finding


def find_memory(slots: int) -> Finding:
    memory = psutil.virtual_memory()
    finding = Finding(f"{memory.available / GB:.0f} of {memory.total / GB:.0f} GB free")
    if memory.available < MEMORY * slots:
        finding.problems.append(
            f"{slots} fine-tunes at a time need {MEMORY * slots / GB:.0f} GB: free some, or run"
            " one at a time: hemotune run --slots cpu"
        )
    return finding


def find_kaggle_token() -> Finding:
    """Look for a token where Kaggle's client does (tasks/download/kaggle_client.py), in the same
    order. Its value is never printed.
    """
    environment, home = os.environ, Path("~/.kaggle").expanduser()
    if environment.get("KAGGLE_API_TOKEN"):
        return Finding("a token in KAGGLE_API_TOKEN")
    files = [home / "access_token", home / "access_token.txt", kaggle_json()]
    pair = bool(environment.get("KAGGLE_USERNAME") and environment.get("KAGGLE_KEY"))
    if pair and not any(path.is_file() for path in files[:2]):
        return Finding("a token in KAGGLE_USERNAME and KAGGLE_KEY")
    for path in (*files, home / "credentials.json"):
        if path.is_file():
            finding = Finding(f"a token in {path}")
            if path.stat().st_mode & 0o077:
                finding.problems.append(f"other users can read it: chmod 600 {path}")
            return finding
    return Finding("no token; a public data set needs none")


def find_remote() -> Finding:
    from dvc.config import Config, ConfigError  # a third of a second

    try:
        config = Config.from_cwd()
        name, remotes = config["core"].get("remote"), config["remote"]
    except ConfigError as error:
        return Finding("not known", [f"DVC: {' '.join(str(error).split())}"])
    if not name:
        return Finding("none; `dvc remote add -d store /a/folder` adds one")
    if name not in remotes:
        return Finding(
            name, [f"core.remote is {name}, but there is no such remote: dvc remote list"]
        )
    url = urlsplit(str(remotes[name]["url"]))
    # Without a user name, password or signature.
    place = f"{url.scheme}://{url.hostname}{url.path}" if url.scheme else url.path
    finding = Finding(f"{name}: {place}")
    if not url.scheme and not Path(".dvc", url.path).resolve().is_dir():
        finding.problems.append(f"there is no folder {place}: create it, or mount its disk")
    return finding


def find_view() -> Finding:
    """Ask the backend in a process of its own, which takes the seconds of its import."""
    command = [sys.executable, "-m", "hemotune.gpu_check"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=BACKEND_IMPORT
        )
    except subprocess.TimeoutExpired:
        return Finding("not known", [f"{backend_name()} has not loaded within {BACKEND_IMPORT} s"])
    if done.returncode == 0:
        return Finding(done.stdout.strip())
    lines = done.stderr.strip().splitlines() or ["it prints nothing"]
    if done.returncode < 0:
        return Finding(
            f"{backend_name()} fails",
            [f"its process ended by {signal.Signals(-done.returncode).name}: {lines[-1]}"],
        )
    return Finding(f"{backend_name()} fails", [lines[-1].removeprefix("error: ")])


if __name__ == "__main__":
    raise SystemExit("error: flows.doctor is not a command: use `hemotune doctor`")
