"""Stage backbone: the initial weights from which all fine-tunes of a backbone start, in one file.

    python -m tasks.backbone ResNet50

Writes data/backbone/NAME/backbone.weights.h5 and backbone.json (where the weights come from).
"""

import sys

from hemotune.command import ArgumentParser
from hemotune.errors import entry_point


@entry_point
def main(*arguments: str) -> None:
    parser = ArgumentParser(__package__, __doc__)
    parser.add_argument("backbone", help="a network of keras.applications, such as ResNet50")
    options = parser.parse_args(arguments)
    # Loads Keras, which takes seconds: not for help or wrong arguments.
    from tasks.backbone.build import build

    build(options.backbone)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
