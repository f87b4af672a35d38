"""The network, its optimizer, its data and its initial weights, in a process with TensorFlow."""

import ctypes
import hashlib
import http.server
import json
import platform
import re
import resource
import threading
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from hemotune import hardware

hardware.use_fast_kernels()

with hardware.quick_import():
    import keras
# The format of the published weights files.
from keras.src.legacy.saving import legacy_h5_format  # noqa: E402

from hemotune.errors import StudyError  # noqa: E402
from hemotune.files import write_json  # noqa: E402
from hemotune.gpus import gpu_names  # noqa: E402
from hemotune.images import recipe  # noqa: E402
from hemotune.prediction.network import load  # noqa: E402
from hemotune.training import averages, fused_adam, inputs, model, observer, resume  # noqa: E402
from hemotune.training import fit as training  # noqa: E402
from tasks.backbone import weights  # noqa: E402
from tasks.finetune import initialization, start  # noqa: E402
from tasks.finetune import run as finetune  # noqa: E402
from tasks.finetune.delivery import deliver  # noqa: E402
from tests.conftest import ROOT  # noqa: E402


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("ResNet50", "resnet50"),
        ("MobileNet", "mobilenet"),
        ("InceptionV3", "inception_v3"),
        ("Xception", "xception"),
        ("DenseNet121", "densenet"),
        ("EfficientNetB0", "efficientnet"),
        ("ResNet50V2", "resnet_v2"),
        ("MobileNetV3Small", "mobilenet_v3"),
    ],
)
def test_preprocessing_is_the_backbones_own(name, module):
    image = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3)).astype("float32")
    own = getattr(keras.applications, module).preprocess_input(image.copy())
    flip, scale, offset = model.channel_affine(name)
    np.testing.assert_allclose(
        (image[..., ::-1] if flip else image) * np.array(scale) + np.array(offset), own, atol=1e-3
    )


def test_every_backbone_of_keras_applications_has_its_preprocessing():
    names = [
        name
        for name, value in vars(keras.applications).items()
        if callable(value) and name[0].isupper()
    ]
    assert len(names) > 30
    for name in names:
        model.channel_affine(name)


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(
        StudyError, match="'ResNet49' is not in keras.applications; there is: .*ResNet50"
    ):
        model.build_backbone("ResNet49", 32)


def small_model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, activation="relu")(x))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(8, activation="relu", name="hidden_1")(x)
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))


def made_up_data():
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 80)
    images = random.integers(0, 128, (80, 8, 8, 3)) + labels[:, None, None, None] * 64
    return images.astype("uint8"), labels


@pytest.fixture
def data():
    return made_up_data()


def test_fused_adam_matches_keras_adam(data):
    images, labels = data
    weights = []
    for optimizer in (fused_adam.adam(1e-2), keras.optimizers.Adam(1e-2)):
        network = small_model()
        network.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
        network.fit(images, labels, epochs=3, batch_size=16, shuffle=False, verbose=0)
        weights.append(network.get_weights())
        assert int(optimizer.iterations) == 15
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="fused under TensorFlow alone")
def test_keras_lets_an_optimizer_fuse_its_updates(data, monkeypatch):
    import tensorflow as tf

    fused, updated = tf.raw_ops.ResourceApplyAdam, []

    def counted(**arguments):
        updated.append(arguments["var"])
        return fused(**arguments)

    monkeypatch.setattr(tf.raw_ops, "ResourceApplyAdam", counted)
    network = small_model()
    network.compile(optimizer=fused_adam.adam(1e-2), loss="sparse_categorical_crossentropy")
    network.fit(*data, epochs=1, batch_size=16, verbose=0)
    # A new Keras may call another method than FusedAdam replaces, and train slowly without a word.
    assert updated, "Keras does not call FusedAdam._backend_update_step"
    assert len(updated) % len(network.trainable_variables) == 0


def fit(data, rate=1e-2, epochs=2, state=None, on_gpu=False, network=None, **settings):
    images, labels = data
    network = network or small_model()
    network.compile(
        optimizer=fused_adam.adam(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    plan = training.Plan("fine-tune", epochs, 16, rate, 1, on_gpu, **settings)
    examples = training.Data(images, labels, train=np.arange(60), validation=np.arange(60, 80))
    done = training.fit(network, examples, plan, state)
    assert done.network is network
    return done


def losses(done):
    return [epoch.loss for epoch in done.course.history]


def same_weights(ours, theirs):
    for mine, other in zip(ours.network.get_weights(), theirs.network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_fit_reports_what_it_did(data, capsys):
    done = fit(data, epochs=3)
    network, history = done.network, done.course.history
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert history[-1].loss < history[0].loss
    images, labels = data
    loss, accuracy = network.evaluate(images[60:], labels[60:], verbose=0)
    assert history[-1].validation_loss == pytest.approx(loss, abs=1e-5)
    assert history[-1].validation_accuracy == pytest.approx(accuracy, abs=1e-6)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("epoch 3/3: loss ")
    assert any(line.startswith("[100%] fine-tune 144/144") for line in lines)


def test_fit_is_repeatable(data):
    first, second = fit(data), fit(data)
    assert losses(first) == losses(second)
    same_weights(first, second)


@pytest.mark.parametrize("averages", ["as_trained", "recomputed"])
def test_images_held_on_the_device_train_the_same(data, monkeypatch, averages):
    batches, held = (fit(data, on_gpu=on_gpu, averages=averages) for on_gpu in (False, True))
    assert losses(held) == losses(batches)
    ours, theirs = (deliver(done, "last").health for done in (held, batches))
    assert ours.hidden == theirs.hidden
    assert ours.train.loss == pytest.approx(theirs.train.loss, rel=1e-6)
    assert ours.other_averages.loss == pytest.approx(theirs.other_averages.loss, rel=1e-6)
    same_weights(held, batches)
    with monkeypatch.context() as patch:  # too many for the device: read in batches
        patch.setattr(training, "HELD_AT_MOST", data[0].nbytes - 1)
        patch.setattr(training, "hold_images", None)
        assert losses(fit(data, on_gpu=True)) == losses(batches)


def test_too_little_memory_names_the_batch_size_to_try(data):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    # No machine has room for that
    x = keras.layers.RepeatVector(2_000_000_000)(keras.layers.Flatten()(inputs))
    network = keras.Model(
        inputs,
        keras.layers.Dense(2, activation="softmax")(keras.layers.GlobalAveragePooling1D()(x)),
    )
    with pytest.raises(
        StudyError,
        match="too little memory for batches of 16 images: set batch_size to 8 in the profile",
    ):
        fit(data, network=network)


def test_a_fit_as_trained_is_what_keras_alone_does(data):
    done, network = fit(data), small_model()
    network.compile(optimizer=fused_adam.adam(1e-2), loss="sparse_categorical_crossentropy")
    for epoch in (1, 2):
        order = np.random.default_rng([1, epoch]).permutation(60)[:48]
        training.reseed(network, [1, epoch])
        network.fit(data[0][order], data[1][order], batch_size=16, shuffle=False, verbose=0)
    deliver(done, "last")
    for ours, keras_own in zip(done.network.get_weights(), network.get_weights(), strict=True):
        # Not the last bit: the two are other graphs, in which TensorFlow fuses other operations.
        np.testing.assert_allclose(ours, keras_own, rtol=1e-5, atol=1e-6)


# At this rate the validation loss is lowest after an epoch before the third.
RISING = 0.1


@pytest.fixture(scope="module")
def whole():
    """A training of four epochs that nothing interrupted."""
    done = fit(made_up_data(), RISING, epochs=4, averages="recomputed")
    assert done.course.best.epoch < 3
    return done


# Before the best epoch is left behind, after it, and at the end
@pytest.mark.parametrize(("keep", "killed_after"), [("best", 2), ("last", 3), ("best", 4)])
def test_a_killed_fit_resumes_with_the_same_results(
    data, whole, tmp_path, monkeypatch, capsys, killed_after, keep
):
    trained = whole.network.get_weights()
    expected = deliver(whole, keep)
    # Killed after this epoch's state was written
    with monkeypatch.context() as patch:
        patch.setattr(training.resume, "save", dying_after(killed_after, training.resume.save))
        with pytest.raises(KeyboardInterrupt):
            fit(data, RISING, epochs=4, state=tmp_path, averages="recomputed")
    resumed = fit(data, RISING, epochs=4, state=tmp_path, averages="recomputed")
    assert f"resumed after epoch {killed_after} of 4" in capsys.readouterr().out
    assert [epoch.epoch for epoch in resumed.course.history] == [1, 2, 3, 4]
    assert losses(resumed) == losses(whole)
    delivered = deliver(resumed, keep)
    assert delivered.health == expected.health
    np.testing.assert_array_equal(delivered.other_averages, expected.other_averages)
    np.testing.assert_array_equal(resumed.course.predicted, whole.course.predicted)
    same_weights(resumed, whole)
    whole.network.set_weights(trained)  # as it was before the delivery


def dying_after(epoch, save):
    def save_and_die(folder, network, course):
        save(folder, network, course)
        if len(course.history) == epoch:
            raise KeyboardInterrupt

    return save_and_die


def test_a_damaged_state_costs_one_epoch(data, tmp_path, capsys):
    expected = fit(data, epochs=3, state=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-2.npz", "epoch-3.npz"]
    newest = tmp_path / "epoch-3.npz"
    newest.write_bytes(newest.read_bytes()[:-200])
    again = fit(data, epochs=3, state=tmp_path)
    output = capsys.readouterr()
    assert "epoch-3.npz is damaged" in output.err and "resumed after epoch 2 of 3" in output.out
    assert losses(again) == losses(expected)
    assert (tmp_path / "epoch-3.damaged").exists()


def test_recomputed_averages_are_the_mean_over_batches(data):
    """Compared with Keras's own layers, one batch at a time; the training goes on as before."""
    plain, done = (fit(data, averages=averages) for averages in ("as_trained", "recomputed"))
    assert losses(done) == losses(plain)
    same_weights(done, plain)
    (normalization,) = averages.normalizations(done.network)
    inside = keras.Model(done.network.input, normalization.input)
    random, means, variances = np.random.default_rng([1, 2, 1]), [], []
    rows = np.concatenate([random.permutation(60) for _ in range(6)])
    for batch in rows[: 20 * 16].reshape(20, 16):
        values = np.asarray(inside(data[0][batch]))
        means.append(values.mean((0, 1, 2)))
        variances.append(values.var((0, 1, 2)))
    delivered = deliver(done, "last")
    for name, expected in ("mean", means), ("variance", variances):
        found = np.asarray(getattr(normalization, f"moving_{name}"))
        np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-4)
    assert normalization.momentum == 0.99
    loss, accuracy = done.network.evaluate(data[0][60:], data[1][60:], verbose=0)
    last = done.course.history[-1]
    assert (last.validation_loss, last.validation_accuracy) == pytest.approx((loss, accuracy), 1e-5)
    assert plain.course.history[-1].validation_loss != last.validation_loss
    choices = {(it.keep, it.averages): it.validation for it in delivered.health.deliveries}
    assert choices["last", "recomputed"].loss == last.validation_loss
    assert choices["last", "as_trained"].loss == plain.course.history[-1].validation_loss
    # Other 20 batches of the same 60 images
    other = delivered.health.other_averages
    assert other.loss != last.validation_loss
    assert other.loss == pytest.approx(last.validation_loss, abs=0.1)


@pytest.mark.parametrize("kind", ["as_trained", "recomputed"])
def test_what_is_delivered_is_measured(data, kind):
    done = fit(data, RISING, epochs=7, averages=kind)
    history = done.course.history
    best = min(history, key=lambda epoch: epoch.validation_loss)
    last_weights = resume.copy_of_weights(done.network)
    for keep, epoch in ("best", best), ("last", history[-1]):
        health = deliver(done, keep).health
        images, labels = data
        probabilities = done.network.predict(images, verbose=0)
        validation = (epoch.validation_loss, epoch.validation_accuracy)
        assert validation == pytest.approx(
            observer.score(probabilities[60:], labels[60:]), rel=1e-4
        )
        train = (health.train.loss, health.train.accuracy)
        assert train == pytest.approx(observer.score(probabilities[:60], labels[:60]), rel=1e-4)
        assert (health.delivered_epoch, health.fit_accuracy) == (epoch.epoch, epoch.accuracy)
        assert health.last_epochs == [epoch.validation_accuracy for epoch in history[2:]]
        (hidden,) = observer.hidden_layers(done.network)
        inside = keras.Model(done.network.input, hidden.output)
        alive = (np.asarray(inside(images[:60])) > 0).any(axis=0)
        assert [(it.units, it.dead) for it in health.hidden] == [(8, 8 - alive.sum())]
        done.network.set_weights(last_weights)  # deliver takes the network of a finished fit
    assert len(done.course.predicted) == 5
    right = [(predicted == labels[60:]).mean() for predicted in done.course.predicted]
    assert right == health.last_epochs


def test_a_dead_unit_is_zero_on_all_images(data):
    network = small_model()
    (hidden,) = observer.hidden_layers(network)
    kernel, bias = (np.array(value) for value in hidden.get_weights())
    kernel[:, :3], bias[:3] = 0, -1
    hidden.set_weights([kernel, bias])
    health = deliver(fit(data, epochs=1, network=network), "last").health
    assert 3 <= health.hidden[0].dead < 8 == health.hidden[0].units


def test_measuring_costs_one_more_trace(data):
    """Tracing ResNet50 takes seconds: the moments of batches are all that is added."""
    assert len(traces(data, "recomputed")) == len(traces(data, "as_trained", measure=False)) + 1


def traces(data, kind, measure=True):
    """Return what a layer was called with while a network was trained, measured and used."""
    traced = []

    class Noted(keras.layers.Layer):
        def call(self, x):
            traced.append(x.shape)
            return x

    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.BatchNormalization()(Noted()(keras.layers.Rescaling(1 / 255)(inputs)))
    x = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x))
    network = keras.Model(inputs, x)
    done = fit(data, epochs=3, network=network, averages=kind)
    if measure:
        deliver(done, "best")
    assert done.observer.see(np.arange(80)).probabilities.shape == (80, 2)
    return traced


@pytest.mark.parametrize(("turns", "ways"), [(False, 4), (True, 8)])
def test_images_are_laid_in_every_way_and_in_no_other(turns, ways):
    image = np.arange(5 * 5 * 3, dtype="uint8").reshape(5, 5, 3)
    laid = np.asarray(inputs.Laid(turns)(np.stack([image] * 200)))
    assert laid.dtype == "uint8"
    upright = [image, image.transpose(1, 0, 2)][: 1 + turns]
    expected = [x[::a, ::b] for x in upright for a in (1, -1) for b in (1, -1)]
    assert {x.tobytes() for x in laid} == {x.tobytes() for x in expected}
    assert len(expected) == ways


def test_augmentation_is_for_training_alone(data):
    plain, laid, held = (
        fit(data, augmentation=kind, on_gpu=on_gpu)
        for kind, on_gpu in (("none", False), ("turns", False), ("turns", True))
    )
    assert losses(laid) == losses(held) != losses(plain)
    assert not any(isinstance(layer, inputs.Laid) for layer in training.layers_of(laid.network))
    seen, (loss, accuracy) = laid.observer.see(np.arange(60, 80)), losses_without(laid, data)
    assert observer.score(seen.probabilities, data[1][60:]) == pytest.approx((loss, accuracy), 1e-5)


def losses_without(done, data):
    return observer.score(done.network.predict(data[0][60:], verbose=0), data[1][60:])


def nested_model():
    """A network with a backbone, as assemble makes it."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="bn_1")(
        keras.layers.Conv2D(4, 3, name="conv_1")(image)
    )
    x = keras.layers.BatchNormalization(name="bn_2")(keras.layers.Conv2D(4, 3, name="conv_2")(x))
    backbone = keras.Model(image, x, name="backbone")
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Flatten()(backbone(keras.layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="classes")(x))


@pytest.mark.parametrize(
    ("up_to", "batch_norm", "changed"),
    [
        ("none", False, {"conv_1", "bn_1", "conv_2", "bn_2", "classes"}),
        ("bn_1", False, {"conv_2", "bn_2", "classes"}),
        ("backbone", False, {"classes"}),
        ("none", True, {"conv_1", "conv_2", "classes"}),
    ],
)
def test_frozen_layers_keep_their_weights(data, monkeypatch, up_to, batch_norm, changed):
    network, shown, see = nested_model(), [], observer.Observer.see
    monkeypatch.setattr(
        observer.Observer, "see", lambda self, rows: shown.append(len(rows)) or see(self, rows)
    )
    before = {
        layer.name: [np.array(value) for value in layer.get_weights()]
        for layer in training.layers_of(network)
    }
    model.freeze(network, up_to, batch_norm)
    done = fit(data, network=network, averages="recomputed")
    delivered = deliver(done, "last")
    # The validation images after each of two epochs, and by other averages where there are others
    assert done.course.best is done.course.history[-1]
    assert shown == [20, 20, *[20] * (2 if changed & {"bn_1", "bn_2"} else 0), 60]
    np.testing.assert_array_equal(
        delivered.validation.probabilities, see(done.observer, np.arange(60, 80)).probabilities
    )
    after = {layer.name: layer.get_weights() for layer in training.layers_of(network)}
    assert changed == {
        name
        for name, values in before.items()
        if any((x != y).any() for x, y in zip(values, after[name], strict=True))
    }


def test_a_layer_to_freeze_must_be_there():
    message = "backbone has no layer 'conv1': name one of its layers, such as conv_1, .*none or"
    with pytest.raises(StudyError, match=message):
        model.freeze(nested_model(), "conv1", False)
    for own, place in (
        ("conv1", "params.yaml: experiments.narrow.freeze: the "),
        (None, "profile: training.freeze: the "),
    ):
        run = SimpleNamespace(
            name="narrow",
            experiment=SimpleNamespace(freeze=own),
            training=SimpleNamespace(freeze="conv1", batch_norm="trained", averages="as_trained"),
        )
        with pytest.raises(StudyError, match=f"^{place}{message}"):
            start.freeze_layers(nested_model(), None, run)


def test_a_rate_that_warms_up_rises_linearly_and_stays():
    rate = fused_adam.warming_up(1e-3, 4)
    found = [float(rate(step)) for step in (0, 1, 3, 4, 100)]
    assert found == pytest.approx([0.25e-3, 0.5e-3, 1e-3, 1e-3, 1e-3], rel=1e-5)
    assert float(fused_adam.warming_up(1e-3, 1)(0)) == pytest.approx(1e-3)


def test_features_join_a_loaded_model_whose_layers_have_kerass_names():
    maps = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="global_average_pooling2d")(maps)
    hidden = keras.layers.Dense(2, name="dense")(pooled)
    loaded = keras.Model(maps, keras.layers.Dense(2, name="unit_normalization")(hidden))
    keras.backend.clear_session()  # as in a new process, which counts from 1
    images = np.random.default_rng(1).random((2, 4, 4, 3)).astype("float32")
    seen = observer.Observer.of(loaded, images).see(np.arange(2))
    np.testing.assert_allclose(np.linalg.norm(seen.features, axis=1), 1, rtol=1e-5)


def test_a_centred_head_begins_with_every_unit_alive():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (90, 8, 8, 3)).astype("uint8")
    network, rows = small_model(), np.arange(80)
    initialization.centre_head(network, images, rows, [1])
    first, last = network.get_layer("hidden_1"), network.layers[-1]
    values = keras.Model(network.inputs, first.input).predict(images[:80], verbose=0)
    kernel, bias = first.get_weights()
    found = values @ kernel + bias
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-3)
    kernel, bias = last.get_weights()
    logits = np.maximum(found, 0) @ kernel + bias
    np.testing.assert_allclose(logits.mean(axis=0), 0, atol=1e-3)
    assert observer.Observer.of(network, images).see(rows).hidden[0].any(axis=0).all()


def test_balanced_classes_weigh_the_same_in_the_loss(data):
    images, _ = data
    labels = (np.arange(80) % 5 == 0).astype(int)
    weights = finetune.balanced_weights(labels[:60])
    assert weights == pytest.approx({0: 60 / 96, 1: 60 / 24})
    history = []
    for class_weights in (None, weights):
        done = fit((images, labels), 1e-9, 1, class_weights=class_weights)
        history.append(done.course.history[0])
    order = np.random.default_rng([1, 1]).permutation(60)[:48]
    network = small_model()
    network.compile(optimizer=fused_adam.adam(1e-9), loss="sparse_categorical_crossentropy")
    training.reseed(network, [1, 1])
    expected = network.fit(
        images[order], labels[order], 16, shuffle=False, verbose=0, class_weight=weights
    )
    assert history[1].loss == pytest.approx(expected.history["loss"][0], rel=1e-5)
    assert history[1].loss != pytest.approx(history[0].loss, rel=1e-2)
    assert history[1].validation_loss == pytest.approx(history[0].validation_loss, rel=1e-4)


def test_changed_settings_data_or_code_start_again(tmp_path):
    (tmp_path / "split.json").write_text("{}")
    first = resume.fingerprint({"epochs": 2}, [tmp_path / "split.json"])
    assert resume.fingerprint({"epochs": 2}, [tmp_path / "split.json"]) == first
    assert resume.fingerprint({"epochs": 3}, [tmp_path / "split.json"]) != first
    with pytest.MonkeyPatch.context() as patch:
        assert ROOT / "hemotune/training/fit.py" in resume.CODE
        patch.setattr(resume, "CODE", resume.CODE[1:])
        assert resume.fingerprint({"epochs": 2}, [tmp_path / "split.json"]) != first
    (tmp_path / "split.json").write_text("[]")
    assert resume.fingerprint({"epochs": 2}, [tmp_path / "split.json"]) != first


def test_a_loss_that_is_not_a_number_stops_at_once(data):
    place = r"the loss is \S+ at epoch 1, step \d of 3, learning rate 1e\+30"
    with pytest.raises(StudyError, match=f"{place}: lower the experiment"):
        fit(data, rate=1e30)


def test_batches_leave_no_odd_shape_and_lose_nothing(data):
    images, labels = data
    whole = inputs.Batches(images, np.arange(70), 16, labels, whole=True)
    assert [len(whole[i][1]) for i in range(len(whole))] == [16] * 4
    rest = inputs.Batches(images, np.arange(70), 16, labels)
    np.testing.assert_array_equal(
        np.concatenate([rest[i][1] for i in range(len(rest))]), labels[:70]
    )


def test_features_that_onednn_must_not_use_are_not_the_cpus(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    everything = hardware.read_cpu().features
    without = everything - hardware.NATIVE_BFLOAT16
    for most in ("AVX2", "AVX512_CORE"):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
        assert hardware.read_cpu().features == without
    for most in ("AVX512_CORE_BF16", "ALL"):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
        assert hardware.read_cpu().features == everything


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="test_study.py tests it with TensorFlow"
)
def test_a_gpu_that_jax_does_not_see_is_an_error(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    if gpu_names():
        pytest.skip("JAX began with a GPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "99")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    expected = (
        "JAX sees none of the GPUs that it may use (99). It reports: devices: [CpuDevice(id=0)]"
        " with jax_platforms = cpu. "
    )
    with pytest.raises(StudyError, match=re.escape(expected)):
        gpu_names()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_freed_memory_is_taken_again_without_the_kernel():
    libc, size = ctypes.CDLL(None), 64 << 20
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes, page = [ctypes.c_void_p], resource.getpagesize()

    def pages_from_the_kernel():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(size)
        ctypes.memset(block, 1, size)
        libc.free(block)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    pages_from_the_kernel()
    assert pages_from_the_kernel() < size / page / 10


def test_precision_follows_the_hardware():
    assert hardware.choose_precision("auto", [], {"avx2"}) == "float32"
    assert hardware.choose_precision("auto", [], {"avx2", "avx512_bf16"}) == "mixed_bfloat16"
    assert hardware.choose_precision("auto", ["NVIDIA H100"], set()) == "mixed_bfloat16"
    assert hardware.choose_precision("float32", ["NVIDIA H100"], set()) == "float32"


@pytest.fixture
def server(tmp_path):
    """A web server for a folder; `folder` is where its files lie."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        web.folder, web.url = folder, f"http://127.0.0.1:{web.server_port}"
        yield web
        web.shutdown()


def test_weights_are_downloaded_and_verified(server, tmp_path):
    body = bytes(range(256)) * 8000
    (server.folder / "weights.h5").write_bytes(body)
    target = tmp_path / "cache" / "weights.h5"
    weights.download(f"{server.url}/weights.h5", target, hashlib.md5(body).hexdigest())
    assert target.read_bytes() == body

    with pytest.raises(StudyError, match="the checksum is not 0000"):
        weights.download(f"{server.url}/weights.h5", tmp_path / "other.h5", "0" * 32)
    with pytest.raises(
        StudyError, match="could not be downloaded .*name it in the profile under backbone.file"
    ):
        weights.download(f"{server.url}/nothing.h5", tmp_path / "other.h5", None)
    server.shutdown()
    server.server_close()
    with pytest.raises(StudyError, match="could not be downloaded"):
        weights.download(f"{server.url}/weights.h5", tmp_path / "other.h5", None)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_imagenet_weights_come_through_keras_applications(monkeypatch, tmp_path, server):
    """The origin and checksum are keras.applications' own; only the host is ours."""
    reference = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    name = "mobilenet_1_0_224_tf_no_top.h5"
    with h5py.File(server.folder / name, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, reference)
    monkeypatch.setattr(keras.src.applications.mobilenet, "BASE_WEIGHT_PATH", f"{server.url}/")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    loaded, source = weights.imagenet("MobileNet", 32)
    assert source["origin"] == f"{server.url}/{name}"
    for ours, theirs in zip(loaded.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("given", [False, True])
def test_cached_weights_without_a_published_checksum_that_do_not_open_are_named(
    monkeypatch, tmp_path, given
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    cached = tmp_path / "models" / "mobilenet_1_0_224_tf_no_top.h5"
    cached.parent.mkdir()
    cached.write_bytes(b"half of a file")
    fix = (
        "name another in the profile under backbone.file" if given else "delete it, then run again"
    )
    with pytest.raises(
        StudyError,
        match=f"{re.escape(str(cached))}: cannot be opened as MobileNet's weights .*: {fix}",
    ):
        weights.imagenet("MobileNet", 32, str(cached) if given else None)


@pytest.mark.parametrize("name", ["ResNet50", "MobileNet"])
def test_skipping_residual_branches_leaves_a_way_through(name):
    network = model.build_backbone(name, 32)
    weights.skip_residual_branches(network)
    images = np.random.default_rng(1).normal(size=(4, 32, 32, 3))
    assert np.ptp(np.asarray(network(images, training=True)), axis=0).max() > 0


def test_a_local_weights_file_must_be_the_real_one(tmp_path):
    with pytest.raises(StudyError, match="backbone.file: there is no .*resnet.h5"):
        weights.imagenet("ResNet50", 32, str(tmp_path / "resnet.h5"))
    (tmp_path / "resnet.h5").write_bytes(b"not the weights")
    checksum = "4d473c1dd8becc155b73f8504c6f6626"  # keras.applications' own
    expected = f"resnet.h5: the checksum is not {checksum}.*name the unchanged file"
    with pytest.raises(StudyError, match=expected):
        weights.imagenet("ResNet50", 32, str(tmp_path / "resnet.h5"))


def test_weights_of_a_users_own_file(tmp_path):
    """The backbone alone, as Keras saves weights and models, and nested in a model of ours."""
    backbone = model.build_backbone("MobileNet", 32)
    backbone.save_weights(tmp_path / "mine.weights.h5")
    backbone.save(tmp_path / "backbone.keras")
    design = model.Design("MobileNet", 32, classes=3, layers=1, units=4)
    model.assemble(backbone, design).save(tmp_path / "whole.keras")
    for name in ("mine.weights.h5", "backbone.keras", "whole.keras"):
        loaded, source = weights.from_file("MobileNet", 48, tmp_path / name)
        assert source["weights"] == str(tmp_path / name) and len(source["sha256"]) == 64
        for ours, theirs in zip(loaded.get_weights(), backbone.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    (tmp_path / "text.weights.h5").write_text("no weights")
    (tmp_path / "text.keras").write_text("no model")
    for name in ("mine.weights.h5", "backbone.keras", "text.weights.h5", "text.keras"):
        with pytest.raises(StudyError, match=f"{name}: does not hold weights of VGG16") as refusal:
            weights.from_file("VGG16", 32, tmp_path / name)
        assert "\n" not in str(refusal.value)
    with pytest.raises(StudyError, match="there is no file .*none.keras; correct the path"):
        weights.from_file("MobileNet", 32, tmp_path / "none.keras")


def test_a_model_trained_in_bfloat16_is_delivered_in_float32(tmp_path, monkeypatch):
    """Saved after training, it loads without this project's optimizer and with the same weights."""
    monkeypatch.chdir(tmp_path)
    write_json("data/images.json", recipe(32))
    design = model.Design("MobileNet", 32, classes=3, layers=2, units=8, dropout=0.5)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        trained = model.assemble(model.build_backbone("MobileNet", 32), design)
        trained.compile(optimizer=fused_adam.adam(1e-3), loss="sparse_categorical_crossentropy")
        training.build(trained, np.zeros(1))
        delivered, features = finetune.in_float32(trained, design), np.ones((4, 256), "float32")
        finetune.save_model(tmp_path, delivered, ["A", "B", "C"], features)
    finally:
        keras.config.set_dtype_policy(before)
    assert json.loads((tmp_path / "model.json").read_text()) == {
        "classes": ["A", "B", "C"],
        "image": recipe(32),
    }
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    assert {layer.compute_dtype for layer in training.layers_of(loaded)} <= {"float32", "uint8"}
    for ours, theirs in zip(loaded.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    dense = [layer.name for layer in loaded.layers if isinstance(layer, keras.layers.Dense)]
    assert dense == ["hidden_1", "hidden_2", "classes"]
    # `hemotune predict` sees in it what the training saw, and refuses what model.json does not fit.
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    before = observer.Observer.of(loaded, images).see(np.arange(4), 4)
    after = load(tmp_path / "model.keras", ["A", "B", "C"], 32).see(images, 4)
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    np.testing.assert_array_equal(after.features, before.features)
    assert after.features.shape == (4, observer.FEATURES)
    with pytest.raises(StudyError, match="gives .*3.*, but model.json beside it says .*2.*: put"):
        load(tmp_path / "model.keras", ["A", "B"], 32)
    (tmp_path / "model.keras").write_bytes(b"half a file")
    with pytest.raises(StudyError, match="cannot be loaded as a model .*: name a model.keras"):
        load(tmp_path / "model.keras", ["A", "B", "C"], 32)
