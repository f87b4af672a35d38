"""The initial weights of a backbone, as one versioned file. Loads Keras."""

from hemotune import hardware

hardware.use_fast_kernels()

with hardware.quick_import():
    import keras  # its backend reads the environment when it is imported

from hemotune.files import new_folder, require_space, write_json  # noqa: E402
from hemotune.gpus import gpu_names  # noqa: E402
from hemotune.settings.backbone import Backbone  # noqa: E402
from hemotune.settings.images import Images  # noqa: E402
from hemotune.settings.reading import read_profile  # noqa: E402
from hemotune.training.fit import versions  # noqa: E402
from hemotune.training.model import build_backbone  # noqa: E402
from tasks.backbone.weights import imagenet, pretrain  # noqa: E402


def build(name: str) -> None:
    """Write data/backbone/NAME: the weights and where they come from."""
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
