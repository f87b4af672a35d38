"""`hemotune predict` without a network: what it refuses, which files it takes, what it answers."""

import csv
import io
import json
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from hemotune.errors import StudyError
from hemotune.evaluation.calibration import Calibration
from hemotune.images import start_decoding
from hemotune.prediction import knowledge
from hemotune.prediction.answers import answers_for
from hemotune.prediction.knowledge import Knowledge, Range, Use
from hemotune.prediction.output import Writer
from hemotune.prediction.pictures import batches, sources_of
from hemotune.settings.images import Images
from tests.conftest import ROOT, run

CLASSES = ["cat", "dog"]


def use(**calibration):
    found = {"temperature": 2.0, "images": 40, "photographs": 30, "error_before": 0.1}
    found |= {"error_after": 0.05, "threshold": 0.3, "no_sets": None} | calibration
    return Use(
        key="narrow-MobileNet-held-out-1",
        protocol="held-out",
        unit="photograph",
        units="photographs",
        calibration=Calibration(**found),
        modes=["RGB"],
        pixels=Range(low=64 * 48, high=64 * 48),
        aspect=Range(low=4 / 3, high=4 / 3),
        brightness=Range(low=100, high=160),
        farthest=0.5,
    )


def known(**calibration):
    features = np.eye(3, dtype=np.float32)
    return Knowledge(use(**calibration), np.array(["a", "b", "c"], object), features)


def save(path, size=(64, 48), mode="RGB", level=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode == "L" else (level,) * 3).save(path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder; it is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*arguments):
    """Run the command in this process; return exit status and what it wrote to standard error."""
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    return result.exit_code, result.stderr


def test_what_cannot_be_predicted_is_refused_in_one_line(here):
    image = save(here / "images/cat.png")
    (here / "empty").mkdir()
    (here / "notes").mkdir()
    (here / "notes/read.txt").touch()
    (here / "data/models/narrow-1").mkdir(parents=True)
    (here / "data/models/narrow-1/model.keras").touch()
    (here / "backbone.weights.h5").touch()
    lone = here / "lone/model.keras"
    lone.parent.mkdir()
    lone.touch()
    (here / "odd").mkdir()
    (here / "odd/model.keras").touch()
    (here / "odd/model.json").write_text('{"classes": ["cat"]}')
    for arguments, words in (
        (["nothing.png"], "nothing.png: there is no such file or folder"),
        (["empty"], "empty: holds no file that ends in .bmp"),
        (["notes"], "notes: holds no file that ends in"),
        ([image, "--csv", "--json"], "exclude each other"),
        ([image, "--explain", image], "is no folder: name another for --explain"),
        ([image], "data/models/best is missing: run `hemotune run`"),
        ([image, "--model", "wide-1"], "no such folder in data/models; there is: narrow-1"),
        ([image, "--model", "backbone.weights.h5"], "holds weights alone: name a model.keras"),
        ([image, "--model", lone], "model.json is missing: copy it"),
        ([image, "--model", "odd"], "odd/model.json: lacks classes or the size of images"),
    ):
        status, line = predict(*arguments)
        assert status == 1 and words in line, (arguments, line)
        assert line.startswith("error: ") and line.count("\n") == 1, line
    assert not (here / "nothing.png").exists()


def test_arguments_are_checked_before_keras_is_loaded_and_prefect_never_is(here):
    save(here / "cat.png")
    program = (
        "import sys\nfrom flows.cli import app\ntry:\n    app(['predict', 'cat.png'])\nfinally:\n"
        "    print({'keras', 'tensorflow', 'prefect', 'dvc'} & set(sys.modules))"
    )
    done = run([sys.executable, "-c", program], here, PYTHONPATH=str(ROOT))
    assert done.returncode == 1 and "data/models/best is missing" in done.stderr
    assert done.stdout.strip() == "set()"


def test_a_folder_gives_its_images_at_any_depth_and_every_file_a_result(tmp_path, capsys):
    start_decoding()
    save(tmp_path / "a/b/fine.png")
    save(tmp_path / "dot.png", size=(1, 1))
    save(tmp_path / "turned.JPG")
    save(tmp_path / ".hidden/no.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "text.png").write_text("this is text")
    data = save(tmp_path / "huge.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + data[24:29]
    checksum = struct.pack(">I", zlib.crc32(header))
    (tmp_path / "huge.png").write_bytes(data[:12] + header + checksum + data[33:])
    frames = [Image.new("L", (8, 8), level) for level in (0, 99)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "moving.gif").rename(tmp_path / "moving.png")
    sources = sources_of(str(tmp_path))
    assert "end in .bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp: 1\n" in capsys.readouterr().err
    found = {
        picture.name: picture for part in batches(sources, Images(size=32), 2) for picture in part
    }
    assert [source.name for source in sources] == list(found) == sorted(found)
    assert {name for name, picture in found.items() if not picture.error} == {
        "a/b/fine.png",
        "dot.png",
        "turned.JPG",
    }
    assert found["a/b/fine.png"].pixels.shape == (32, 32, 3)
    assert found["a/b/fine.png"].brightness == 128
    for name, reason in (
        ("text.png", "is not a JPEG"),
        ("huge.png", "exceeds limit"),
        ("moving.png", "is a GIF image, not a JPEG"),
    ):
        assert reason in found[name].error, found[name].error


def test_an_image_on_standard_input_is_read(tmp_path, monkeypatch):
    data = save(tmp_path / "cat.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    ((picture,),) = batches(sources_of("-"), Images(size=32), 9)
    assert (picture.name, picture.error, picture.brightness) == ("standard input", None, 128)


def test_output_that_nobody_reads_any_more_ends_the_command_quietly(here):
    program = (
        "import sys\nfrom hemotune.errors import entry_point\n"
        "@entry_point\ndef main():\n    while True: print('line', flush=True)\nsys.exit(main())"
    )
    command = ["bash", "-c", f'{sys.executable} -c "$1" | head -1; echo ${{PIPESTATUS[0]}}', "-"]
    done = run([*command, program], here, PYTHONPATH=str(ROOT))
    assert (done.stdout, done.stderr) == ("line\n141\n", "")


def test_an_answer_says_what_is_known_and_in_what_an_image_is_unlike(tmp_path):
    save(tmp_path / "1.png")
    save(tmp_path / "2.png", size=(200, 48), mode="L", level=250)
    (tmp_path / "3.png").touch()
    (pictures,) = batches(sources_of(str(tmp_path)), Images(size=32), 9)
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4]], np.float32)
    features = np.array([[0.96, 0.28, 0], [-0.6, 0, -0.8]], np.float32)
    like, unlike, broken = answers_for(pictures, probabilities, features, CLASSES, known())
    assert (like.prediction, like.set, like.unsure, like.warnings) == ("cat", ["cat"], False, [])
    assert like.probability == pytest.approx(0.75)  # 3 : 1, the root of 9 : 1
    assert like.uncalibrated == pytest.approx({"cat": 0.9, "dog": 0.1})
    assert like.nearest == ["a", "b", "c"]
    assert unlike.set == ["cat", "dog"] and unlike.unsure
    assert [warning.split()[0] for warning in unlike.warnings] == [
        "mode",
        "size",
        "width",
        "brightness",
        "farther",
    ]
    assert (broken.prediction, broken.error) == (None, "is empty")

    written = {}
    for form in ("text", "csv", "json"):
        stream = io.StringIO()
        writer = Writer(form, CLASSES, stream)
        for answer in (like, unlike, broken):
            writer.write(answer)
        written[form] = stream.getvalue()
    rows = list(csv.DictReader(io.StringIO(written["csv"])))
    assert [row["unsure"] for row in rows] == ["no", "yes", ""]
    assert rows[1]["set"] == "cat; dog" and rows[2]["error"] == "is empty"
    assert float(rows[0]["probability_cat"]) == pytest.approx(0.75)
    assert float(rows[0]["uncalibrated_dog"]) == pytest.approx(0.1)
    objects = [json.loads(line) for line in written["json"].splitlines()]
    assert objects[1]["set"] == ["cat", "dog"] and objects[1]["unsure"] is True
    assert objects[2] == {"image": "3.png", "error": "is empty", "warnings": [], "nearest": []}
    first, _, second, *_ = written["text"].splitlines()
    assert first == "1.png: cat 75.0 %, set {cat}"
    assert second == "2.png: cat 55.1 %, set {cat, dog}, unsure"
    assert written["text"].splitlines()[-1] == "3.png: is empty"


def test_nothing_known_of_a_model_leaves_its_own_probabilities(tmp_path):
    (pictures,) = batches(sources_of(str(save(tmp_path / "1.png"))), Images(size=32), 9)
    probabilities = np.array([[0.9, 0.1]], np.float32)
    for about, probability in ((None, 0.9), (known(threshold=None, no_sets="shared"), 0.75)):
        (answer,) = answers_for(pictures, probabilities, np.eye(3)[:1], CLASSES, about)
        assert answer.probability == pytest.approx(probability)
        assert answer.set is None and answer.unsure is None


def test_the_nearest_are_those_of_a_search_of_all_pairs():
    random = np.random.default_rng(1)
    queries, references = (random.standard_normal((n, 8)).astype("float32") for n in (600, 50))
    queries, references = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, references)
    )
    places, distances = knowledge.nearest(queries, references, 3)
    every = np.linalg.norm(queries[:, None] - references[None], axis=2)
    np.testing.assert_array_equal(places, np.argsort(every, axis=1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(every, axis=1)[:, :3], atol=1e-5)
    assert knowledge.nearest(queries[:1], references[:2], 3)[0].shape == (1, 2)


def test_what_is_known_is_read_as_it_was_written(tmp_path):
    before = known()
    knowledge.write(before, tmp_path)
    after = knowledge.read(tmp_path)
    assert after.use == before.use and after.paths.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(after.features, before.features)
    (tmp_path / "use.json").write_text("{}")
    with pytest.raises(StudyError, match="cannot be read .*: run `dvc repro report`"):
        knowledge.read(tmp_path)
