"""NVIDIA's Multi-Process Service: the kernels of several processes on a GPU run at the same time.
Without it they take turns.

https://docs.nvidia.com/deploy/mps
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.output import Log
from flows.slots import CPU, device_of

CONTROL = "nvidia-cuda-mps-control"
# Starts the service and a server for this user, which shows whether it is allowed here. Ends it
# when standard input closes, which also happens when this process is killed.
SCRIPT = f"""
trap 'rm -rf "$CUDA_MPS_PIPE_DIRECTORY"' EXIT
control() {{ timeout 20 {CONTROL} "$@"; }}
control -d || exit
echo "start_server -uid $(id -u)" | control
echo "servers: $(echo get_server_list | control)"
read -r _
echo quit | control
"""


@contextlib.contextmanager
def running(slots: Sequence[str], log: Log) -> Iterator[dict[str, str]]:
    """Run the service within this block if several `slots` share a GPU, and if it is there and
    allowed; yield the variables by which the stages find it.
    """
    shared = Counter(device for slot in slots if (device := device_of(slot)) != CPU)
    if max(shared.values(), default=0) < 2 or not shutil.which(CONTROL):
        yield {}
        return
    default = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    if listens(Path(default) / "control"):
        log.info("the Multi-Process Service of %s is used", default)
        yield {}
        return
    # Short: a socket's path has at most 107 characters.
    folder = tempfile.mkdtemp(prefix="mps-")
    variables = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
    service = start(variables)
    answers = read_start(service)
    if answers and answers[-1].removeprefix("servers: ").strip().isdecimal():
        log.info("NVIDIA's Multi-Process Service runs until the end of this run")
    else:
        log.warning(
            "NVIDIA's Multi-Process Service does not start (%s); stages take turns on a GPU",
            " ".join(answers) or "it says nothing",
        )
        end(service)
        variables = {}
    try:
        yield variables
    finally:
        end(service)


def listens(control: Path) -> bool:
    """Whether a service listens at its socket: one that was killed leaves the file. CUDA programs
    find the service by connecting in the same way.
    """
    if not control.exists():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        try:
            client.connect(str(control))
        except ConnectionRefusedError:
            return False
        except OSError:  # another user's, for example: there is a service, or what looks like one
            return True
    return True


def start(variables: dict[str, str]) -> subprocess.Popen[str]:
    """Start the script, out of reach of Ctrl-C: the service must outlive the stages."""
    # The service numbers the GPUs as the stages do: all of them, in the order of the bus.
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    return subprocess.Popen(
        ["sh", "-c", SCRIPT],
        env=environment | variables | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def read_start(service: subprocess.Popen[str]) -> list[str]:
    """Return what the script prints until the service runs, or has failed to."""
    lines: list[str] = []
    assert service.stdout
    for line in service.stdout:
        lines.append(line.strip())
        if line.startswith("servers:"):
            break
    return lines


def end(service: subprocess.Popen[str]) -> None:
    """End the service, and wait at most 10 s for it."""
    assert service.stdin
    with contextlib.suppress(OSError):
        service.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        service.wait(10)
