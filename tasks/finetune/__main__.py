"""Stage finetune: one experiment under one protocol, from one backbone, with one seed.

    python -m tasks.finetune mn_resultset1 ResNet50 random-1

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
    parser.add_argument("backbone", help="the name of a folder in data/backbone")
    parser.add_argument("training", help="the name of a file in data/splits, without .json")
    options = parser.parse_args(arguments)
    # Loads Keras, which takes seconds: not for help or wrong arguments.
    from tasks.finetune.run import fine_tune

    fine_tune(options.experiment, options.backbone, options.training)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
