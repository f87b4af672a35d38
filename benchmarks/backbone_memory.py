"""Write hemotune/backbones.csv, from which `--per-gpu auto` estimates memory: for every backbone of
keras.applications its parameters and the values that its layers put out for each pixel of an image.

    python -m benchmarks.backbone_memory
"""

import csv
import math
from pathlib import Path

import keras

TABLE = Path("hemotune/backbones.csv")
SIZE = 224  # pixels; the values for each pixel are nearly the same at other sizes


def measure(name: str) -> tuple[int, int]:
    """Return a backbone's parameters, and the values that its layers put out for each pixel."""
    model = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(SIZE, SIZE, 3)
    )
    values = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    return model.count_params(), round(values / SIZE**2)


def main() -> None:
    names = [name for name, what in vars(keras.applications).items() if callable(what)]
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["backbone", "parameters", "values_per_pixel"])
        for name in sorted(names):
            rows.writerow([name, *measure(name)])
            file.flush()  # networks of some hundred layers take a while
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
