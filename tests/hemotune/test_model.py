"""The network, its optimizer, its data and its initial weights, in a process with TensorFlow."""

import hashlib
import http.server
import json
import re
import threading

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
from hemotune.training import fit as training  # noqa: E402
from hemotune.training import fused_adam, model, resume  # noqa: E402
from tasks.backbone import weights  # noqa: E402
from tasks.finetune import run as finetune  # noqa: E402
from tasks.validate.inventory import recipe  # noqa: E402
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
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(8, activation="relu")(x))
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))


@pytest.fixture
def data():
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 80)
    images = random.integers(0, 128, (80, 8, 8, 3)) + labels[:, None, None, None] * 64
    return images.astype("uint8"), labels


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


def fit(data, rate=1e-2, epochs=2, state=None, on_gpu=False, network=None):
    images, labels = data
    network = network or small_model()
    network.compile(
        optimizer=fused_adam.adam(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    plan = training.Plan("fine-tune", epochs, 16, rate, seed=1, hold_images=on_gpu)
    examples = training.Data(images, labels, train=np.arange(60), validation=np.arange(60, 80))
    return network, training.fit(network, examples, plan, state)


def losses(history):
    return [epoch.loss for epoch in history]


def test_fit_reports_what_it_did(data, capsys):
    network, history = fit(data, epochs=3)
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
    (first, history), (second, again) = fit(data), fit(data)
    assert losses(history) == losses(again)
    for ours, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_images_held_on_the_device_train_the_same(data, monkeypatch):
    (batches, expected), (held, history) = fit(data), fit(data, on_gpu=True)
    assert losses(history) == losses(expected)
    for ours, theirs in zip(held.get_weights(), batches.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with monkeypatch.context() as patch:  # too many for the device: read in batches
        patch.setattr(training, "HELD_AT_MOST", data[0].nbytes - 1)
        patch.setattr(training, "hold_images", None)
        assert losses(fit(data, on_gpu=True)[1]) == losses(expected)


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


def test_a_killed_fit_resumes_with_the_same_results(data, tmp_path, monkeypatch, capsys):
    whole, expected = fit(data, epochs=4)
    # Killed in the third epoch: the disk holds the state after the second.
    with monkeypatch.context() as patch:
        patch.setattr(training.resume, "save", dying_after(2, training.resume.save))
        with pytest.raises(KeyboardInterrupt):
            fit(data, epochs=4, state=tmp_path)
    resumed, history = fit(data, epochs=4, state=tmp_path)
    assert "resumed after epoch 2 of 4" in capsys.readouterr().out
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4]
    assert losses(history) == losses(expected)
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def dying_after(epoch, save):
    def save_and_die(folder, model, history):
        save(folder, model, history)
        if len(history) == epoch:
            raise KeyboardInterrupt

    return save_and_die


def test_a_damaged_state_costs_one_epoch(data, tmp_path, capsys):
    _, expected = fit(data, epochs=3, state=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-2.npz", "epoch-3.npz"]
    newest = tmp_path / "epoch-3.npz"
    newest.write_bytes(newest.read_bytes()[:-200])
    _, history = fit(data, epochs=3, state=tmp_path)
    output = capsys.readouterr()
    assert "epoch-3.npz is damaged" in output.err and "resumed after epoch 2 of 3" in output.out
    assert losses(history) == losses(expected)
    assert (tmp_path / "epoch-3.damaged").exists()


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
    whole = model.Batches(images, np.arange(70), 16, labels, whole=True)
    assert [len(whole[i][1]) for i in range(len(whole))] == [16] * 4
    rest = model.Batches(images, np.arange(70), 16, labels)
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
        finetune.save_model(tmp_path, finetune.in_float32(trained, design), ["A", "B", "C"])
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
