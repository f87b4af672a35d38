"""The initial weights of a backbone, as one versioned file. Loads Keras."""

from pathlib import Path

from hemotune import hardware
from hemotune.paths import BACKBONES  # noqa: E402

hardware.use_fast_kernels()

with hardware.quick_import():
    import keras  # its backend reads the environment when it is imported

from hemotune.files import new_folder, require_space, write_json  # noqa: E402
from hemotune.gpus import choose_device  # noqa: E402
from hemotune.settings.backbone import Backbone  # noqa: E402
from hemotune.settings.images import Images  # noqa: E402
from hemotune.settings.reading import read_profile  # noqa: E402
from hemotune.training.fit import versions  # noqa: E402
from hemotune.training.model import build_backbone  # noqa: E402
from hemotune.training.records import Software  # noqa: E402
from tasks.backbone.weights import Source, from_file, imagenet, pretrain  # noqa: E402


def build(name: str) -> None:
    """Write data/backbone/NAME: the weights and where they come from."""
    size, backbone = read_profile("images", Images).size, read_profile("backbone", Backbone)
    device = choose_device(backbone.pretrain.precision)
    keras.config.set_dtype_policy(device.precision)
    keras.utils.set_random_seed(
        backbone.pretrain.seed if backbone.weights == "pretrain" else backbone.seed
    )
    source: Source
    match backbone.weights:
        case "imagenet":
            model, source = imagenet(name, size, backbone.file)
        case "pretrain":
            model, source = pretrain(name, size, backbone.pretrain, device.is_gpu)
        case "random":
            model, source = build_backbone(name, size), {"weights": "random", "seed": backbone.seed}
        case file:
            model, source = from_file(name, size, Path(file).expanduser())
    parameters = model.count_params()
    facts = {"backbone": name, "size": size, "parameters": parameters, **source}
    if backbone.weights == "pretrain":
        facts |= Software(precision=device.precision, versions=versions()).model_dump()
    with new_folder(BACKBONES / name) as folder:
        require_space(folder, 5 * parameters)  # float32 and what HDF5 adds
        model.save_weights(folder / "backbone.weights.h5")
        write_json(folder / "backbone.json", facts)
    print(f"{name}: {parameters} parameters, {', '.join(f'{k} {v}' for k, v in source.items())}")
