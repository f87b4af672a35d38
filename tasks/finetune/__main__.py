"""Stage finetune: one experiment under one protocol, from one backbone, with one seed.

    python -m tasks.finetune mn_resultset1 random ResNet50 1

Writes data/models/KEY/{model.keras, model.json} and data/results/KEY/{history.csv,
predictions.parquet, metrics.json}.
"""

import sys

from hemotune.command import ArgumentParser
from hemotune.errors import entry_point


@entry_point
def main(*arguments: str) -> None:
    parser = ArgumentParser(__package__, __doc__)
    parser.add_argument("experiment", help="its name in params.yaml")
    parser.add_argument("protocol", help="the name of a file in data/splits, without .json")
    parser.add_argument("backbone", help="the name of a folder in data/backbone")
    parser.add_argument("repeat", type=int, help="1 or more; repeat n trains with seed + n - 1")
    options = parser.parse_args(arguments)
    # Loads Keras, which takes seconds: not for help or wrong arguments.
    from tasks.finetune.run import fine_tune

    fine_tune(options.experiment, options.protocol, options.backbone, options.repeat)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
