"""Where a network sees its class, on drawn cells; under both backends."""

import numpy as np
from PIL import Image

from hemotune import hardware

hardware.use_fast_kernels()

with hardware.quick_import():
    import keras

from hemotune.cells import smear  # noqa: E402
from hemotune.prediction import explanation  # noqa: E402
from hemotune.prediction.explanation import grad_cam, occlusion, write_picture  # noqa: E402
from hemotune.prediction.network import Network  # noqa: E402
from hemotune.training.observer import Observer  # noqa: E402

CLASSES = ["EOSINOPHIL", "LYMPHOCYTE"]
SIZE = 64


def draw(number, monkeypatch):
    """Draw cells of two classes in turn: pictures, labels, and where the white cell lies."""
    places, original = [], smear.draw_white_cell

    def recording(rng, density, cell_class, centre, radius, *others):
        places.append((centre, radius))
        return original(rng, density, cell_class, centre, radius, *others)

    monkeypatch.setattr(smear, "draw_white_cell", recording)
    pictures = np.stack(
        [
            smear.draw_photograph(
                np.random.default_rng(i), CLASSES[i % 2], SIZE, SIZE, magnification=1.6
            )
            for i in range(number)
        ]
    )
    y, x = np.mgrid[:SIZE, :SIZE]
    cells = [np.hypot(y - centre[0], x - centre[1]) < radius for centre, radius in places]
    return pictures, np.arange(number) % 2, np.stack(cells)


def small_network():
    """A small convolutional network with a head like that of the study; its maps are 8 x 8."""
    inputs = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    for width in (8, 16, 32):
        x = keras.layers.Conv2D(width, 3, 2, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(16, activation="relu", name="hidden_1")(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))


def test_at_least_half_of_the_heat_lies_on_the_cell(monkeypatch, tmp_path, capsys):
    """By both methods, on cells that a network trained in seconds recognises."""
    keras.utils.set_random_seed(1)
    images, labels, cells = draw(330, monkeypatch)
    model = small_network()
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(images[:300], labels[:300], batch_size=30, epochs=10, verbose=0)
    network = Network(model, Observer.of(model, images))
    seen = network.see(images[300:], 30)
    right = 300 + np.flatnonzero(seen.predicted == labels[300:])
    assert len(right) > 24
    rows = right[:12]
    area = cells[rows].mean()
    for name, heat_of_image in (
        ("occlusion", lambda row: occlusion(network, images[row], int(labels[row]), 64)),
        ("Grad-CAM", lambda row: grad_cam(model, images[row], int(labels[row]))),
    ):
        heats = [heat_of_image(row) for row in rows]
        shares = []
        for row, heat in zip(rows, heats, strict=True):
            assert heat.shape == (SIZE, SIZE) and heat.min() >= 0 and heat.max() in (0, 1)
            if heat.any():
                shares.append(heat[cells[row]].sum() / heat.sum())
        assert len(shares) >= 9  # of 12: hidden units that are all zero see nothing at all
        with capsys.disabled():
            print(f"\n{name}: {np.mean(shares):.0%} of the heat on {area:.0%} of the area")
        assert np.mean(shares) >= 0.5 > 2 * area
    write_picture(tmp_path / "heat.png", images[0], heats[0])
    assert Image.open(tmp_path / "heat.png").size == (512, 256)


def test_small_images_are_covered_and_large_ones_are_not(monkeypatch):
    monkeypatch.setattr(explanation, "occlusion", lambda *_: "covered")
    monkeypatch.setattr(explanation, "grad_cam", lambda *_: "Grad-CAM")
    network = Network(None, None)
    for size, method in ((127, "covered"), (128, "Grad-CAM")):
        image = np.zeros((size, size, 3), np.uint8)
        assert explanation.heat_of(network, image, 0, 64) == method
