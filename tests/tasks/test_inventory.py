"""The pass over the images: facts, pixels, hashes, and what looks the same."""

import re
from typing import get_args

import cv2
import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from hemotune import images, inventory
from hemotune.copies import nearly_same, same_bytes
from hemotune.errors import StudyError
from hemotune.settings.images import Fit
from hemotune.settings.validation import Mode
from tests.conftest import documented_model_code
from tests.tasks.pictures import fill, picture, save, take


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder with every odd file there is, its inventory by path and its pixels."""
    top = tmp_path_factory.mktemp("odd")
    folder = top / "images"
    whole = save(folder, "TRAIN/A/whole.jpeg", picture(1), quality=90)
    data = whole.read_bytes()
    (folder / "TRAIN/A/cut.jpeg").write_bytes(data[: len(data) * 2 // 3])
    (folder / "TRAIN/A/text.jpeg").write_text("this is text")
    (folder / "TRAIN/A/empty.jpeg").touch()
    (folder / "TRAIN/A/gif.jpeg").write_bytes(b"GIF89a" + bytes(100))
    (folder / "TRAIN/A/later.jpeg").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100))
    (folder / "TRAIN/A/packed.png").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    (folder / "TRAIN/A/header.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    save(folder, "TRAIN/A/cmyk.jpeg", picture(2).convert("CMYK"))
    save(folder, "TRAIN/A/grey.jpeg", picture(3).convert("L"))
    save(folder, "TRAIN/A/palette.png", picture(4).convert("P"))
    save(folder, "TRAIN/A/deep.png", Image.fromarray(np.full((120, 160), 200 << 8, np.uint16)))
    save(folder, "TRAIN/A/still.webp", picture(5))
    save(folder, "TRAIN/A/moving.webp", picture(5), save_all=True, append_images=[picture(6)])
    save(folder, "TRAIN/A/one.tiff", picture(7))
    save(folder, "TRAIN/A/pages.tiff", picture(7), save_all=True, append_images=[picture(8)])
    save(folder, "TRAIN/A/plain.bmp", picture(9))
    turned = Image.Exif()
    turned[images.ORIENTATION] = 6
    save(
        folder,
        "TRAIN/A/turned.jpeg",
        picture(1).transpose(Image.Transpose.ROTATE_90),
        exif=turned,
        quality=90,
    )
    save(folder, "TRAIN/A/bomb.png", Image.new("1", (20000, 20000)))
    rows, _ = take(folder, top / "images.npy", size=32)
    assert rows["path"].tolist() == sorted(rows["path"])
    rows.attrs["folder"] = folder
    return rows.assign(name=rows["path"].str.rsplit("/", n=1).str[-1]).set_index("name"), np.load(
        top / "images.npy"
    )


def test_damaged_files_get_a_row_and_no_crash(odd):
    rows, pixels = odd
    expected = {
        "cut.jpeg": "truncated",
        "text.jpeg": "is not a JPEG",
        "gif.jpeg": "is a GIF image, not a JPEG",
        "packed.png": "is a 7z archive, not a JPEG",
        "later.jpeg": "is a JPEG 2000 image, not a JPEG",
        "header.png": "is a PNG image with a damaged header",
        "empty.jpeg": "is empty",
        "moving.webp": "holds 2 frames",
        "pages.tiff": "holds 2 frames",
        "bomb.png": "decompression bomb",
    }
    assert set(rows.index[~rows["readable"]]) == set(expected)
    for name, error in expected.items():
        assert error in rows.at[name, "error"]
        assert "0x" not in rows.at[name, "error"]  # an address would differ from run to run
        assert not pixels[rows.index.get_loc(name)].any()
    assert rows.loc[rows["readable"], "error"].isna().all()


def test_modes_and_formats_are_reported_as_stored(odd):
    rows, pixels = odd
    modes = {
        "cmyk.jpeg": "CMYK",
        "grey.jpeg": "L",
        "deep.png": "I;16",
        "palette.png": "P",
        "plain.bmp": "RGB",
        "still.webp": "RGB",
    }
    assert rows["mode"].loc[list(modes)].to_dict() == modes
    assert rows.at["still.webp", "format"] == "WEBP" and rows.at["one.tiff", "format"] == "TIFF"
    # The upper eight bits, not clipped
    assert (pixels[rows.index.get_loc("deep.png")] == 200).all()


def read(path, size=4, fit="squeeze"):
    """Return the facts of the image file at `path` and its pixels, uint8 (size, size, 3)."""
    pixels = np.zeros((size, size, 3), np.uint8)
    grey = np.zeros((images.GREY_SIDE, images.GREY_SIDE), np.uint8)
    return inventory.read_image(path, pixels, grey, fit), pixels


@pytest.mark.parametrize("mode", ["I", "F"])
def test_grey_levels_of_no_fixed_range_are_refused(tmp_path, mode):
    path = tmp_path / "levels.tiff"
    Image.new(mode, (8, 8), 1).save(path)
    row, _ = read(path)
    assert (
        not row.readable
        and row.error
        == f"mode {mode} has grey levels without a fixed range; save it with 8 or 16 bits"
    )


def test_16_bit_levels_that_count_from_white_are_refused(tmp_path):
    save(
        tmp_path,
        "negative.tiff",
        Image.new("I;16", (8, 8), 60_000),
        tiffinfo={images.PHOTOMETRIC: 0},
    )
    row, _ = read(tmp_path / "negative.tiff")
    assert not row.readable and "with white as zero" in row.error


def test_dark_ink_of_12_bits_is_refused(tmp_path):
    """Pillow keeps the upper eight of 16 bits of ink: what prints nearly black would be nearly
    white.
    """
    image = Image.new("CMYK", (8, 8), (15, 15, 15, 15))
    with pytest.raises(ValueError, match="below a quarter"):
        images.to_rgb(image, deep=True)


def test_a_profile_may_allow_the_modes_that_can_be_read_and_no_others(tmp_path):
    white = {"La": (255, 255), "PA": (255, 255), "LAB": (255, 128, 128), "YCbCr": (255, 128, 128)}
    white |= {"I;16": 65535, "I;16B": 65535, "CMYK": (0, 0, 0, 0)}
    readable = set()
    # TIFF has the modes of all other formats too.
    for mode in {mode for mode, _ in TiffImagePlugin.OPEN_INFO.values()}:
        try:
            made = Image.new(mode, (8, 8), white.get(mode, "white"))
            if mode == "PA":
                made.putpalette(bytes(255 * 3) + b"\xff\xff\xff")
            path = save(tmp_path, f"{mode.replace(';', '')}.tiff", made)
        except OSError:
            continue
        row, pixels = read(path)
        if row.readable:
            readable.add(row.mode)
            assert (pixels > 250).all(), mode
    assert readable == set(get_args(Mode))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_transparent_pixels_are_white(tmp_path, mode):
    """The left half is black and transparent, the right half black and solid."""
    alpha = Image.fromarray(np.repeat([[0] * 4 + [255] * 4], 8, axis=0).astype(np.uint8))
    picture, options = Image.new("L", (8, 8), 0), {}
    if mode.endswith("A"):
        picture = picture.convert(mode)
        picture.putalpha(alpha)
    else:  # one colour that is transparent: black, and what is solid is white there
        picture = (alpha if mode == "1" else Image.eval(alpha, lambda level: level // 2)).convert(
            mode
        )
        options = {"transparency": (0, 0, 0) if mode == "RGB" else picture.getpixel((0, 0))}
    row, pixels = read(save(tmp_path, "half.png", picture, **options))
    assert row.readable and (pixels[:, 0] == 255).all()
    assert (pixels[:, -1] == pixels[0, -1]).all() and (mode == "1" or (pixels[:, -1] < 130).all())


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_16_bits_keep_the_upper_eight_and_are_refused_where_they_hold_fewer(
    tmp_path, bits, channels, suffix
):
    levels = np.tile(np.linspace(0, 2**bits - 1, 64).astype(np.uint16), (64, 1))
    levels = (
        levels
        if channels == 1
        else np.stack([levels] * 3 + [np.full_like(levels, 65535)] * (channels - 3), axis=-1)
    )
    path = tmp_path / f"ramp{suffix}"
    assert cv2.imwrite(str(path), levels)
    row, pixels = read(path, 64)
    assert row.readable == (bits == 16)
    if bits == 16:
        assert pixels.min() == 0 and pixels.max() == 255
    else:
        assert "below a quarter of their range" in row.error
        assert "save it with 8 bits" in row.error


def test_exif_orientation_is_applied(odd):
    rows, pixels = odd
    assert (rows.at["turned.jpeg", "width"], rows.at["turned.jpeg", "height"]) == (160, 120)
    turned, whole = (
        pixels[rows.index.get_loc(name)].astype(int) for name in ("turned.jpeg", "whole.jpeg")
    )
    assert np.abs(turned - whole).mean() < 3


def test_the_readme_reads_every_file_as_the_study_does(odd, tmp_path):
    """To the byte, with Pillow alone and the recipe that lies beside each model."""
    rows, pixels = odd
    readme = {"np": np, "Image": Image, "ImageOps": ImageOps}
    exec(re.search(r"def read\(.*?(?=\n\n\n)", documented_model_code(), re.DOTALL)[0], readme)
    for row, (path, readable) in enumerate(zip(rows["path"], rows["readable"], strict=True)):
        if readable:
            np.testing.assert_array_equal(
                readme["read"](rows.attrs["folder"] / path, images.recipe(32)), pixels[row], path
            )
    save(tmp_path / "images", "TRAIN/A/large.jpeg", picture(1, (640, 480)), quality=90)
    save(tmp_path / "images", "TRAIN/A/tall.png", picture(1, (101, 480)))
    for fit in get_args(Fit):
        rows, _ = take(tmp_path / "images", tmp_path / "images.npy", size=32, fit=fit)
        for path, expected in zip(rows["path"], np.load(tmp_path / "images.npy"), strict=True):
            pixels = readme["read"](tmp_path / "images" / path, images.recipe(32, fit))
            np.testing.assert_array_equal(pixels, expected, f"{path}, {fit}")


def test_a_square_keeps_what_the_setting_says(tmp_path):
    """An image of 40 x 20 pixels, left half red and right half blue."""
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, :20, 0] = picture[:, 20:, 2] = 255
    path = save(tmp_path, "wide.png", Image.fromarray(picture))
    squeezed, padded, cropped = (read(path, 20, fit)[1] for fit in ("squeeze", "pad", "crop"))
    assert (squeezed[:, 0, 0] == 255).all() and (squeezed[:, -1, 2] == 255).all()
    np.testing.assert_array_equal(cropped, picture[:, 10:30])
    assert (padded[:5] == 255).all() and (padded[15:] == 255).all()
    np.testing.assert_array_equal(padded[5:15], squeezed[:10])
    row, _ = read(save(tmp_path, "line.png", Image.new("RGB", (1000, 1))), 20, "pad")
    assert row.error == "is 1000 x 1 pixels, too narrow to be padded to a square"


def test_pixels_are_those_of_a_plain_decode(tmp_path):
    fill(tmp_path / "images", {"TRAIN/A": 70})  # more than a chunk
    rows, _ = take(tmp_path / "images", tmp_path / "images.npy", size=32)
    pixels = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert pixels.shape == (70, 32, 32, 3) and pixels.dtype == np.uint8
    for row in (0, 65, 69):
        plain = Image.open(tmp_path / "images" / rows.at[row, "path"]).resize(
            (32, 32), Image.Resampling.BILINEAR
        )
        assert np.abs(pixels[row].astype(int) - np.asarray(plain)).mean() < 2
    again, _ = take(tmp_path / "images", tmp_path / "again.npy", size=32, processes=1)
    pd.testing.assert_frame_equal(rows, again)
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "images.npy").read_bytes()


@pytest.mark.parametrize("size", [(320, 240), (161, 83), (1000, 150), (33, 17), (7, 640)])
@pytest.mark.parametrize(
    "encoding",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"progressive": True},
        {"quality": 5},
        {"icc_profile": bytes(5000)},
    ],
)
def test_a_plain_jpeg_is_decoded_as_pillow_does(tmp_path, size, encoding):
    path = save(tmp_path, "plain.jpeg", picture(1, size), **encoding)
    for side in (8, 64):
        row, expected = images.FileFacts(), images.FileFacts()
        small = images.decode_plain_jpeg(path.read_bytes(), side, row, "squeeze")
        plain = images.decode_any(path.read_bytes(), side, expected, "squeeze")
        assert small.tobytes() == plain.tobytes()
        assert row == expected


def test_what_is_no_plain_jpeg_is_left_to_pillow(tmp_path, monkeypatch):
    turned = Image.Exif()
    turned[images.ORIENTATION] = 6
    whole = save(tmp_path, "whole.jpeg", picture(1)).read_bytes()
    others = [
        save(tmp_path, "turned.jpeg", picture(1), exif=turned),
        save(
            tmp_path,
            "pages.jpeg",
            picture(1),
            format="MPO",
            save_all=True,
            append_images=[picture(2)],
        ),
        save(tmp_path, "grey.jpeg", picture(1).convert("L")),
        save(tmp_path, "cmyk.jpeg", picture(1).convert("CMYK")),
        save(tmp_path, "rgb.jpeg", picture(1), keep_rgb=True),
        save(tmp_path, "one.png", picture(1)),
    ]
    for data in [path.read_bytes() for path in others] + [
        whole[:-50],
        whole[:1000] + b"\xff\xd9",
        b"\xff\xd8",
        b"",
    ]:
        row = images.FileFacts()
        assert images.decode_plain_jpeg(data, 32, row, "squeeze") is None
        assert row == images.FileFacts()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert images.decode_plain_jpeg(whole, 32, images.FileFacts(), "squeeze") is None


def test_hashes_are_those_of_imagehash():
    grey = np.stack([np.asarray(picture(seed, (64, 64)).convert("L")) for seed in range(8)])
    expected = [str(imagehash.phash(Image.fromarray(image), inventory.HASH_SIDE)) for image in grey]
    assert inventory.perceptual_hashes(grey) == expected


def test_files_at_another_depth_are_refused(tmp_path):
    (tmp_path / "TRAIN").mkdir()
    (tmp_path / "TRAIN/stray.jpeg").touch()
    with pytest.raises(StudyError, match="stray.jpeg.*SPLIT/CLASS"):
        inventory.list_images(tmp_path)
    with pytest.raises(StudyError, match="dvc repro download"):
        inventory.list_images(tmp_path / "nothing")


def frame(rows):
    return pd.DataFrame(rows, columns=["path", "split", "class", "sha256", "phash"])


def test_same_bytes_name_each_other():
    places = [("a", "T", "A"), ("b", "T", "A"), ("c", "T", "B"), ("d", "T", "A"), ("e", "T", "A")]
    across, within = same_bytes(
        frame(
            [
                (*place, content, "")
                for place, content in zip(places, ["1", "1", "1", "2", None], strict=True)
            ]
        )
    )
    assert across == ["c", "c", "a", None, None]
    assert within == ["b", "a", None, None, None]


def test_near_duplicates_equal_a_search_of_all_pairs():
    random = np.random.default_rng(5)
    bits = random.integers(0, 2, (300, 256), dtype=np.uint8)
    for row in range(150, 300):  # near copies of the first half, 0 to 14 bits away
        bits[row] = bits[row - 150]
        bits[row, random.choice(256, row % 15, replace=False)] ^= 1
    rows = [
        (f"{n:03}", "TRAIN" if n % 2 else "TEST", "A", str(n), np.packbits(row).tobytes().hex())
        for n, row in enumerate(bits)
    ]
    rows.append(("unreadable", "TRAIN", "A", "x", None))
    across, within = nearly_same(frame(rows), 10)
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    np.fill_diagonal(distance, 256)
    split = np.arange(300) % 2
    for found, other in ((across, split[:, None] != split), (within, split[:, None] == split)):
        near = np.where(other, distance, 256)
        expected = [f"{line.argmin():03}" if line.min() <= 10 else None for line in near] + [None]
        assert found == expected


def test_thousands_of_blank_images_are_compared_in_seconds():
    rows = frame(
        [
            (f"{n:04}", "TRAIN" if n < 2500 else "TEST", "A", str(n), "80" + "0" * 62)
            for n in range(3000)
        ]
    )
    across, within = nearly_same(rows, 10)
    assert any(across) and all(within)


def test_a_re_encoded_copy_is_a_near_duplicate(tmp_path):
    fill(tmp_path / "images", {"TRAIN/A": 3})
    save(
        tmp_path / "images",
        "TEST/A/again.png",
        Image.open(tmp_path / "images/TRAIN/A/1.jpeg").resize((320, 240)),
    )
    rows, _ = take(tmp_path / "images", tmp_path / "images.npy")
    across, _ = nearly_same(rows, 10)
    assert dict(zip(rows["path"], across, strict=True))["TRAIN/A/1.jpeg"] == "TEST/A/again.png"
    assert sum(path is not None for path in across) == 2
