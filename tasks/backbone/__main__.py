"""Stage backbone: the initial weights that all fine-tunes of a backbone start from, as one
versioned file.

    python -m tasks.backbone ResNet50

Writes data/backbone/NAME/backbone.weights.h5 and backbone.json (where the weights come from).
"""

import sys

from hemotune import hardware

hardware.use_fast_kernels()

with hardware.quick_import():
    import keras  # its backend reads the environment when it is imported

from hemotune.errors import entry_point  # noqa: E402
from hemotune.files import new_folder, require_space, write_json  # noqa: E402
from hemotune.gpus import gpu_names  # noqa: E402
from hemotune.settings.backbone import Backbone  # noqa: E402
from hemotune.settings.images import Images  # noqa: E402
from hemotune.settings.reading import read_profile  # noqa: E402
from hemotune.training.fit import versions  # noqa: E402
from hemotune.training.model import build_backbone  # noqa: E402
from tasks.backbone.weights import imagenet, pretrain  # noqa: E402


@entry_point
def main(name):
    size, backbone = read_profile("images", Images).size, read_profile("backbone", Backbone)
    gpus, features = gpu_names(), hardware.read_cpu().features
    keras.config.set_dtype_policy(
        hardware.choose_precision(backbone.pretrain.precision, gpus, features)
    )
    keras.utils.set_random_seed(
        backbone.pretrain.seed if backbone.weights == "pretrain" else backbone.seed
    )
    match backbone.weights:
        case "imagenet":
            model, source = imagenet(name, size, backbone.file)
        case "pretrain":
            model, source = pretrain(name, size, backbone.pretrain, bool(gpus))
        case "random":
            model, source = build_backbone(name, size), {"weights": "random", "seed": backbone.seed}
    with new_folder(f"data/backbone/{name}") as folder:
        require_space(folder, 5 * model.count_params())  # float32 and what HDF5 adds
        model.save_weights(folder / "backbone.weights.h5")
        facts = {"backbone": name, "size": size, "parameters": model.count_params(), **source}
        if backbone.weights == "pretrain":
            facts |= {"precision": keras.config.dtype_policy().name, "versions": versions()}
        write_json(folder / "backbone.json", facts)
    print(
        f"{name}: {model.count_params()} parameters,"
        f" {', '.join(f'{key} {value}' for key, value in source.items())}"
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
