"""Predictions drawn at random, and judged."""

import numpy as np
import pandas as pd

from hemotune.evaluation.predictions import judge

CLASSES = ["EOSINOPHIL", "LYMPHOCYTE", "MONOCYTE", "NEUTROPHIL"]


def drawn(photographs=40, copies=6, skill=0.6, seed=0, trained=0):
    """Predictions of `copies` images of each photograph, and which photograph each came from;
    copies err together.
    """
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(photographs) % 4, copies)
    easy = np.repeat(rng.normal(0, 1.5, photographs), copies)
    noise = np.random.default_rng([seed, trained]).normal(0, 1, (len(truth), 4))
    noise[np.arange(len(truth)), truth] += skill + easy
    probability = np.exp(noise) / np.exp(noise).sum(axis=1, keepdims=True)
    paths = [f"TEST/{CLASSES[t]}/_{i:04}.jpeg" for i, t in enumerate(truth)]
    predictions = pd.DataFrame(
        {"path": paths, "split": "test", "truth": [CLASSES[t] for t in truth]}
    )
    for i, name in enumerate(CLASSES):
        predictions[f"probability_{name}"] = probability[:, i].astype(np.float32)
    grouped = pd.DataFrame(
        {"path": paths, "photograph": [f"BloodImage_{i // copies:05}" for i in range(len(paths))]}
    )
    return predictions, grouped


def judged(**settings):
    predictions, grouped = drawn(**settings)
    return judge(predictions, photographs=grouped)


def table_of(correct, photographs=None):
    """A judged table of two classes with the given right (1) and wrong (0) answers."""
    paths = [f"{i:05}" for i in range(len(correct))]
    right = np.asarray(correct, dtype=float)
    predictions = pd.DataFrame(
        {
            "path": paths,
            "split": "test",
            "truth": "A",
            "probability_A": right,
            "probability_B": 1 - right,
        }
    )
    grouped = (
        None if photographs is None else pd.DataFrame({"path": paths, "photograph": photographs})
    )
    return judge(predictions, photographs=grouped)
