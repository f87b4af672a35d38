"""The training code under Keras's other backend."""

import re
import sys

from tests.conftest import ROOT, run


def test_training_runs_under_jax_as_under_tensorflow():
    """Runs tests of training and of heat maps in a process whose backend is JAX."""
    tests = "fit_reports or held and recomputed or killed and 2 or the_mean or trace or not_see"
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist"]
    files = ["tests/hemotune/test_model.py", "tests/hemotune/test_heat.py"]
    command = [*pytest, *files, "-k", f"{tests} or of_the_heat"]
    # As JAX's own tests: compiling takes longer than computing.
    done = run(command, ROOT, KERAS_BACKEND="jax", JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b7 passed", done.stdout)
