"""How many of the planted label errors are listed, and how much of the list is right.

    python -m benchmarks.label_errors [--photographs 100] [--copies 4] [--size 64]
        [--backbone ResNet50] [--images 4000]

Draws photographs of each class with copies, gives 5 % of them another class before anything else,
and runs the project's own stages validate, prepare (five folds by photograph) and backbone
(pre-trained on other drawn cells). A linear probe on the backbone's features, trained in each fold,
predicts the photographs that it has not seen. The goals are at least 80 % of the errors listed and
at least 60 % of the list right.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemotune.cells import dataset as cells
from hemotune.cells.smear import CLASSES
from hemotune.evaluation.label_errors import find_label_errors
from hemotune.evaluation.predictions import Judged, judge
from hemotune.hardware import cpu_name
from hemotune.paths import BACKBONES, INVENTORY, PHOTOGRAPHS, PIXELS, SPLITS
from hemotune.splits import read_split
from tests.conftest import ENVIRONMENT, make_workspace

FOLDS = 5
SHARE = 0.05  # of the photographs that get another class
LISTED, RIGHT = 0.8, 0.6  # the goals
PARAMS = """\
profile: tiny
backbones: [{backbone}]
trainings: [{trainings}]
experiments:
  probe: {{layers: 1, units: 8, learning_rate: 1.0e-5}}
"""
PROFILE = """\
dataset: {{source: sample}}
images: {{size: {size}}}
validation: {{}}
split: {{folds: {folds}, seed: 1}}
backbone:
  weights: pretrain
  pretrain: {{images: {images}, magnification: 1.6, epochs: {epochs}, seed: 1001}}
training: {{epochs: 1}}
"""


def draw(
    raw: Path, photographs: int, copies: int, size: int, seed: int = 1
) -> tuple[dict[str, str], dict[str, str]]:
    """Draw a data set into `raw` in which SHARE of the photographs lie in another class's folder.

    Args:
        photographs: of each class.
        size: px, the height of the images.

    Returns:
        The photograph of each image by its path, and {photograph: its right class} of the
        mislabelled ones.
    """
    truth = cells.write_sample(raw, photographs, copies, size * 4 // 3, size, seed, 1.6)
    random = np.random.default_rng(seed)
    names = sorted(set(truth.values()))
    wrong = set(random.choice(names, round(SHARE * len(names)), replace=False))
    classes = {photograph: path.split("/")[1] for path, photograph in truth.items()}
    given = {
        name: random.choice([c for c in CLASSES if c != classes[name]]) for name in sorted(wrong)
    }
    found = {}
    for path, photograph in truth.items():
        split, _, name = path.split("/")
        if photograph in wrong:
            # A name of its own: another image of that class may have the same one.
            moved = f"{split}/{given[photograph]}/wrong{name}"
            (raw / "images" / path).rename(raw / "images" / moved)
            path = moved
        found[path] = photograph
    return found, {name: classes[name] for name in wrong}


def make_study(
    folder: Path,
    backbone: str,
    size: int,
    photographs: int,
    copies: int,
    images: int,
    epochs: int,
) -> dict[str, str]:
    """Draw a data set in the workspace `folder` and run the stages validate and prepare on it.

    Returns:
        {photograph: its right class} of the mislabelled ones.
    """
    make_workspace(folder)
    trainings = ", ".join(f"fold-{fold}-1" for fold in range(1, FOLDS + 1))
    (folder / "params.yaml").write_text(PARAMS.format(backbone=backbone, trainings=trainings))
    (folder / "profiles" / "tiny.yaml").write_text(
        PROFILE.format(size=size, folds=FOLDS, images=images, epochs=epochs)
    )
    truth, wrong = draw(folder / "data" / "raw", photographs, copies, size)
    (folder / "data" / "raw" / "source.json").write_text(json.dumps({"source": "sample"}))
    pd.DataFrame(truth.items(), columns=["path", "photograph"]).to_parquet(folder / PHOTOGRAPHS)
    run_stage(folder, "validate")
    run_stage(folder, "prepare")
    return wrong


def run_stage(folder: Path, *stage: str) -> None:
    """Run a stage in the workspace `folder`; `stage` is its name and arguments."""
    subprocess.run(
        [sys.executable, "-m", f"tasks.{stage[0]}", *stage[1:]],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(folder)},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def features_of(folder: Path, backbone: str) -> NDArray[np.float32]:
    """The pooled features (N, channels) of all images, from the pre-trained backbone."""
    run_stage(folder, "backbone", backbone)
    from hemotune import hardware

    hardware.use_fast_kernels()
    with hardware.quick_import():
        import keras

    from hemotune.training.model import Design, assemble, build_backbone

    images = np.load(folder / PIXELS, mmap_mode="r")
    network = build_backbone(backbone, images.shape[1])
    network.load_weights(folder / BACKBONES / backbone / "backbone.weights.h5")
    model = assemble(network, Design(backbone, images.shape[1], len(CLASSES)))
    pooled = keras.Model(model.inputs, model.layers[-2].output)
    features: NDArray[np.float32] = pooled.predict(images[:], batch_size=64, verbose=0)
    return features


def judge_by_probe(folder: Path, features: NDArray[np.floating]) -> Judged:
    """The judged predictions of all images, each by the probe of the fold that tests it."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    inventory = pd.read_parquet(folder / INVENTORY)
    tables = []
    for fold in range(1, FOLDS + 1):
        split = read_split(folder / SPLITS / f"fold-{fold}-1.json")
        known = split.train + split.validation
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=200))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(features[known], inventory["class"].iloc[known])
        rows = inventory.iloc[split.test]
        predictions = pd.DataFrame(
            probe.predict_proba(features[split.test]),
            columns=[f"probability_{name}" for name in probe.classes_],
        ).assign(path=rows["path"].array, truth=rows["class"].array, split="test")
        photographs = pd.read_parquet(folder / PHOTOGRAPHS)
        tables.append(judge(predictions, photographs=photographs))
    return pd.concat(tables).sort_index()


def counts_of(judged: Judged, wrong: dict[str, str]) -> tuple[int, int, int]:
    """How many photographs are listed, of these rightly, and of these with their right class."""
    found = find_label_errors([judged])
    right = found[found["photograph"].isin(wrong)]
    named = right["suggestion"] == right["photograph"].map(wrong)
    return len(found), len(right), int(named.sum())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.label_errors", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--backbone", default="ResNet50")
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument("--photographs", type=int, default=100, help="of each class")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--images", type=int, default=4000, help="to pre-train on")
    parser.add_argument("--epochs", type=int, default=1, help="of the pre-training")
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrong = make_study(folder, **vars(options))
        judged = judge_by_probe(folder, features_of(folder, options.backbone))
    listed, right, named = counts_of(judged, wrong)
    photographs = judged["photograph"].nunique()
    print(
        f"{cpu_name()}: {photographs} photographs, {len(judged)} images at {options.size} px,"
        f" {options.backbone}; the probe is right, by the given classes, on"
        f" {judged['correct'].mean():.1%}"
    )
    print(f"listed of the planted errors: {right} of {len(wrong)} (goal: {LISTED:.0%})")
    print(f"right in the list: {right} of {listed} (goal: {RIGHT:.0%}); right class: {named}")
    return int(right < LISTED * len(wrong) or right < RIGHT * listed)


if __name__ == "__main__":
    sys.exit(main())
