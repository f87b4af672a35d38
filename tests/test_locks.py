"""The lock files: every package that pyproject.toml names, for every Python and machine."""

import re
import subprocess
import tomllib

import pytest

from tests.conftest import ENVIRONMENT, ROOT

VERSIONS = ["3.11", "3.12", "3.13"]
# As uv names them: 2018's glibc is older than that of any system with these Pythons.
PLATFORMS = ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin"]
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))
BUILT_FROM_SOURCE = {"antlr4-python3-runtime"}  # pure Python, without a wheel
NO_REGISTRY = re.compile(
    r".*(?:error sending request|dns error|Failed to fetch|Could not connect).*"
)


def pinned(lock):
    """The names of the packages in a lock file."""
    return set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_locks_resolve_for_every_python_and_machine(version, tmp_path):
    """Resolves without installing: each package has a wheel whose hash is in the lock file."""
    names = sorted(set.union(*map(pinned, LOCKS)) - BUILT_FROM_SOURCE)
    wheels = [f"--only-binary={name}" for name in names]
    files = [f"--requirement={ROOT / lock}" for lock in LOCKS]
    runs = {
        platform: subprocess.Popen(
            ["uv", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--require-hashes"]
            + [f"--target={tmp_path / platform}", f"--python-version={version}"]
            + [f"--python-platform={platform}", *wheels, *files],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for platform in PLATFORMS
    }
    errors = {platform: run.communicate()[1] for platform, run in runs.items()}
    if unreachable := next(filter(None, map(NO_REGISTRY.search, errors.values())), None):
        pytest.skip(f"the package registry does not answer: {unreachable[0].strip()}")
    assert {name: run.returncode for name, run in runs.items()} == dict.fromkeys(runs, 0), errors


def test_the_locks_hold_what_the_project_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {
        "requirements.lock": [*project["dependencies"], *extras["dev"], *extras["dask"]],
        "requirements-setup.lock": ["uv"],
        "requirements-cuda.lock": ["nvidia-cudnn-cu12"],
        "requirements-jax-cuda.lock": ["jax-cuda12-plugin"],
    }
    assert sorted(named) == LOCKS
    for lock, names in named.items():
        assert {name.replace(".", "-") for name in names} <= pinned(lock), lock
        text = (ROOT / lock).read_text()
        assert "://" not in text  # no address of a registry
        assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\S)", text.strip()))
    # Installed together, they must not name two versions of one package.
    for lock in ("requirements-cuda.lock", "requirements-jax-cuda.lock"):
        assert not pinned(lock) & pinned("requirements.lock")
