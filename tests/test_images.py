import concurrent.futures
import errno
import os
import pathlib
import struct
import warnings
import zlib

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import skimage.color
import skimage.data

from jaxsr import images
from jaxsr.errors import InputError
from jaxsr.files import atomic


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_rgb_is_read_exactly_from_lossless_files(tmp_path, values, suffix):
    path = tmp_path / f"picture.{suffix}"
    PIL.Image.fromarray(values).save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = images.read(path)
    assert image.pixels.dtype == np.float32 and image.alpha is None
    np.testing.assert_array_equal(image.pixels, values.astype(np.float32) / 255)


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path, values):
    path = tmp_path / "picture.jpg"
    PIL.Image.fromarray(values).save(path)
    np.testing.assert_array_equal(images.to_uint8(images.read(path).pixels), PIL.Image.open(path))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_gray_stays_gray(tmp_path, suffix):
    path = tmp_path / f"gray.{suffix}"
    PIL.Image.fromarray(np.full((8, 9), 77, np.uint8)).save(path)
    expected = np.full((8, 9, 1), np.float32(77) / np.float32(255))
    np.testing.assert_array_equal(images.read(path).pixels, expected)


@pytest.mark.parametrize("mode, channels", [("RGBA", 4), ("LA", 2)])
def test_alpha_is_kept_apart(tmp_path, mode, channels):
    values = np.random.default_rng(1).integers(0, 256, (6, 5, channels), dtype=np.uint8)
    path = tmp_path / "picture.png"
    picture = PIL.Image.fromarray(values)
    assert picture.mode == mode
    picture.save(path)
    image = images.read(path)
    np.testing.assert_array_equal(images.to_uint8(image.pixels), values[..., :-1])
    np.testing.assert_array_equal(images.to_uint8(image.alpha), values[..., -1:])


def test_palette_becomes_rgb_and_its_transparency_alpha(tmp_path):
    picture = PIL.Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("L")
    picture = picture.convert("P")
    picture.putdata([0, 1, 2, 1])
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(tmp_path / "opaque.png")
    picture.save(tmp_path / "transparent.png", transparency=1)
    expected = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    opaque, transparent = (images.read(tmp_path / f"{n}.png") for n in ("opaque", "transparent"))
    np.testing.assert_array_equal(images.to_uint8(opaque.pixels), expected)
    np.testing.assert_array_equal(images.to_uint8(transparent.pixels), expected)
    assert opaque.alpha is None
    np.testing.assert_array_equal(transparent.alpha[..., 0], [[1, 0], [1, 0]])


@pytest.mark.parametrize("dtype, suffix", [("<u2", "png"), ("<u2", "tif"), (">u2", "tif")])
def test_sixteen_bits_of_gray_are_kept(tmp_path, dtype, suffix):
    values = np.array([[0, 1, 257], [65535, 32768, 1000]], dtype)
    path = tmp_path / f"deep.{suffix}"
    PIL.Image.fromarray(values).save(path)
    expected = values.astype(np.float32)[..., None] / np.float32(65535)
    np.testing.assert_array_equal(images.read(path).pixels, expected)


def write_deep_png(path, values, *, depth=16, clear=()):
    """A PNG of so many bits a channel, (H, W, 1 to 4); `clear` is the pixel that is transparent."""

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    def packed(row):
        bits = "".join(f"{value:0{depth}b}" for value in row.ravel())
        return b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")

    height, width, channels = values.shape
    colour_type = (0, 4, 2, 6)[channels - 1]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour_type, 0, 0, 0))
        + (chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b"")
        + chunk(b"IDAT", zlib.compress(b"".join(map(packed, values))))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("channels", [2, 4])
def test_sixteen_bits_with_alpha_are_read_as_eight(tmp_path, channels):
    """Gray stays gray; colour whose channels are equal stays colour."""
    gray, alpha = np.random.default_rng(6).integers(0, 256, (2, 5, 7, 1), dtype=np.uint8)
    values = np.concatenate([gray] * (channels - 1) + [alpha], axis=-1)
    write_deep_png(tmp_path / "deep.png", values.astype(np.uint16) * 257)
    image = images.read(tmp_path / "deep.png")
    np.testing.assert_array_equal(image.pixels, images.from_uint8(values[..., :-1]))
    np.testing.assert_array_equal(image.alpha, images.from_uint8(alpha))
    assert image.narrowed and image.bits == 8


def test_colour_of_sixteen_bits_is_read_by_the_upper_eight(tmp_path):
    values = np.random.default_rng(7).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    write_deep_png(tmp_path / "deep.png", values)
    image = images.read(tmp_path / "deep.png")
    np.testing.assert_array_equal(image.pixels, images.from_uint8((values >> 8).astype(np.uint8)))
    assert image.narrowed
    write_deep_png(tmp_path / "gray.png", values[..., :1])
    images.write(tmp_path / "plain.png", image.pixels)
    assert not any(images.read(tmp_path / x).narrowed for x in ("gray.png", "plain.png"))


def test_one_value_of_sixteen_bits_may_be_transparent(tmp_path):
    values = np.array([[0, 1000, 1001], [65535, 1000, 232]])[..., None]
    write_deep_png(tmp_path / "key.png", values, clear=(1000,))
    image = images.read(tmp_path / "key.png")
    np.testing.assert_array_equal(image.pixels, values.astype(np.float32) / np.float32(65535))
    assert image.alpha.dtype == np.float32
    np.testing.assert_array_equal(image.alpha[..., 0], [[1, 0, 1], [1, 0, 1]])
    write_deep_png(tmp_path / "opaque.png", values)
    opaque = images.read(tmp_path / "opaque.png")
    assert opaque.alpha is None and (image.bits, opaque.bits) == (8, 16)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_one_value_of_few_bits_may_be_transparent(tmp_path, depth):
    values = np.arange(8)[None, :, None] % 2**depth
    write_deep_png(tmp_path / "key.png", values, depth=depth, clear=(1,))
    image = images.read(tmp_path / "key.png")
    np.testing.assert_allclose(image.pixels, values / (2**depth - 1), atol=1e-7)
    np.testing.assert_array_equal(image.alpha, values != 1)


def test_one_colour_of_sixteen_bits_may_be_transparent(tmp_path):
    """Known by its upper 8 bits, which are all that Pillow reads."""
    values = np.array([[[0, 0, 0], [512, 770, 65535], [512, 771, 9]]])
    write_deep_png(tmp_path / "key.png", values, clear=tuple(values[0, 1]))
    image = images.read(tmp_path / "key.png")
    np.testing.assert_allclose(image.pixels, (values >> 8) / 255, atol=1e-7)
    np.testing.assert_array_equal(image.alpha[0, :, 0], [1, 0, 1])


def test_gray_of_32_bits_must_say_its_range(tmp_path):
    path = tmp_path / "wide.tif"
    PIL.Image.fromarray(np.array([[0, 65535]], np.int32)).save(path)
    np.testing.assert_array_equal(images.read(path).pixels, [[[0], [1]]])
    PIL.Image.fromarray(np.array([[0.25, 1]], np.float32)).save(path)
    np.testing.assert_array_equal(images.read(path).pixels, [[[0.25], [1]]])
    for wrong in (np.array([[-1, 5]], np.int32), np.array([[0.0, np.nan]], np.float32)):
        PIL.Image.fromarray(wrong).save(path)
        with pytest.raises(InputError, match="must lie in"):
            images.read(path)


def test_one_bit_and_cmyk(tmp_path):
    bits = np.array([[True, False, True]])
    PIL.Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(images.read(tmp_path / "bits.png").pixels, [[[1], [0], [1]]])
    PIL.Image.new("CMYK", (2, 2), (255, 0, 0, 0)).save(tmp_path / "inks.tif")
    np.testing.assert_array_equal(
        images.read(tmp_path / "inks.tif").pixels, np.full((2, 2, 3), [0, 1, 1])
    )


def test_exif_orientation_is_applied(tmp_path, values):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left
    PIL.Image.fromarray(values).save(tmp_path / "turned.png", exif=exif)
    turned = images.to_uint8(images.read(tmp_path / "turned.png").pixels)
    np.testing.assert_array_equal(turned, np.rot90(values, -1))


def bad_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    files = {name: folder / name for name in ("missing.png", "empty.png", "text.png")}
    files["empty.png"].touch()
    files["text.png"].write_text("no image\n" * 100)
    for suffix in ("png", "jpg", "tif", "webp"):
        whole, cut = folder / f"whole.{suffix}", folder / f"cut.{suffix}"
        PIL.Image.fromarray(noise).save(whole)
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        files[cut.name] = cut
    files["folder"] = folder
    return files


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_damaged_exif_data_say_nothing(tmp_path, suffix):
    values = np.full((8, 9, 3), 77, np.uint8)
    PIL.Image.fromarray(values).save(tmp_path / f"a.{suffix}", exif=b"garbagegarbage")
    np.testing.assert_allclose(
        images.read(tmp_path / f"a.{suffix}").pixels, values / 255, atol=2 / 255
    )


def test_reading_in_threads_leaves_the_filters_of_warnings(tmp_path):
    images.write(tmp_path / "a.png", np.zeros((64, 64, 3)))
    before = list(warnings.filters)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(lambda _: images.read(tmp_path / "a.png"), range(16)))
    assert list(warnings.filters) == before


def test_bad_files_give_one_line_with_the_path(tmp_path):
    for name, path in bad_files(tmp_path).items():
        with pytest.raises(InputError) as caught:
            images.read(path)
        message = str(caught.value)
        assert str(path) in message and "\n" not in message, name


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(PIL.Image, "open", refuse)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        images.read(tmp_path / "secret.png")


# Pillow warns above its limit and raises above twice of it.
@pytest.mark.parametrize("limit", [60, 20])
def test_decompression_bomb(tmp_path, monkeypatch, limit):
    PIL.Image.new("L", (10, 10)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(InputError, match=f"too large.*{limit}"):
        images.read(tmp_path / "bomb.png")
    with pytest.raises((PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)):
        PIL.Image.open(tmp_path / "bomb.png")  # as before: warnings are errors in these tests


def test_write_clips_rounds_and_reads_back(tmp_path):
    pixels = np.array([[[-0.5], [0.3 / 255], [0.7 / 255]], [[1.5], [254.6 / 255], [100 / 255]]])
    for name in ("gray.png", "gray"):
        images.write(tmp_path / name, pixels)
        back = images.to_uint8(images.read(tmp_path / name).pixels)[..., 0]
        np.testing.assert_array_equal(back, [[0, 0, 1], [255, 255, 100]])
    assert sorted(os.listdir(tmp_path)) == ["gray", "gray.png"]


def test_bytes_are_written_as_they_are(tmp_path, values):
    assert images.to_uint8(values) is values
    images.write(tmp_path / "a.png", values)
    np.testing.assert_array_equal(PIL.Image.open(tmp_path / "a.png"), values)


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
def test_gray_of_sixteen_bits_is_written_as_it_is(tmp_path, suffix):
    values = np.array([[0, 1, 256], [65535, 65534, 300]], np.uint16)[..., None]
    images.write(tmp_path / f"a.{suffix}", values)
    with PIL.Image.open(tmp_path / f"a.{suffix}") as file:
        np.testing.assert_array_equal(np.asarray(file), values[..., 0])
    image = images.read(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(np.rint(image.pixels * 65535), values)
    assert image.bits == 16
    for other in ("jpg", "webp", "bmp"):  # Pillow would clip to 8 bits for one of them
        with pytest.raises(InputError, match="cannot hold 16 bits"):
            images.write(tmp_path / f"a.{other}", values)
    for colour, alpha in ((values.repeat(3, -1), None), (values, np.ones((2, 3, 1)))):
        with pytest.raises(InputError, match=r"\(of uint16\) must hold"):
            images.write(tmp_path / f"b.{suffix}", colour, alpha=alpha)
    assert os.listdir(tmp_path) == [f"a.{suffix}"]


def test_half_precision_is_rounded_once():
    """All float16 numbers of [0, 1], whose product with 255 is none, in general."""
    halves = np.arange(0x3C01, dtype=np.uint16).view(np.float16)
    assert halves[0] == 0 and halves[-1] == 1
    expected = np.rint(halves.astype(np.float64) * 255)
    np.testing.assert_array_equal(images.to_uint8(halves), expected)


def test_values_that_have_no_8_bits_are_refused():
    np.testing.assert_array_equal(images.to_uint8(np.array([True, False])), [255, 0])
    for dtype in (np.int64, np.uint16, np.int8):
        with pytest.raises(InputError, match=rf"\(of {np.dtype(dtype)}\) must hold"):
            images.to_uint8(np.full((2, 2, 1), 100, dtype))
    for dtype in (np.float32, jnp.bfloat16):
        with pytest.raises(InputError, match="NaN"):
            images.to_uint8(np.array([0.5, np.nan]).astype(dtype))


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_lose_little(tmp_path, suffix):
    """As Pillow writes them at quality 95, whose own defaults are 75 and 80."""
    pixels = skimage.data.coffee()[:64, :80]
    images.write(tmp_path / f"a.{suffix}", pixels)
    PIL.Image.fromarray(pixels).save(tmp_path / f"b.{suffix}", quality=95)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_write_keeps_alpha(tmp_path, channels):
    rng = np.random.default_rng(3)
    pixels = images.from_uint8(rng.integers(0, 256, (4, 5, channels), dtype=np.uint8))
    alpha = images.from_uint8(rng.integers(0, 256, (4, 5, 1), dtype=np.uint8))
    images.write(tmp_path / "a.png", pixels, alpha=alpha)
    image = images.read(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, pixels)
    np.testing.assert_array_equal(image.alpha, alpha)


def test_write_refuses_what_it_cannot_do(tmp_path):
    gray = np.zeros((2, 2, 1))
    (tmp_path / "file").touch()
    for path, message in [
        ("a.xyz", r"a.xyz` must end in .png, "),
        ("a.ico", r"a.ico` must end in .png, "),  # 256 pixels a side at most, silently
        ("a.gif", r"a.gif` must end in .png, "),  # 256 colours
        ("a.pbm", r"a.pbm` must end in .png, "),  # black and white
        ("a.pfm", r"a.pfm` must end in .png, "),  # floats
        ("", r"`.` must name a file"),
        ("none/a.png", "cannot be written"),
        ("file/a.png", "cannot be"),
    ]:
        with pytest.raises(InputError, match=message):
            images.write(tmp_path / path if path else "", gray)
    with pytest.raises(InputError, match="must be"):
        images.write(tmp_path / "a.png", np.zeros((2, 2)))
    with pytest.raises(InputError, match="`alpha`"):
        images.write(tmp_path / "a.png", gray, alpha=np.zeros((3, 2, 1)))
    for suffix in ("bmp", "ppm", "jpg"):
        message = "cannot be written" if suffix == "jpg" else "cannot hold transparency"
        with pytest.raises(InputError, match=message):
            images.write(tmp_path / f"a.{suffix}", gray, alpha=gray)
    with pytest.raises(InputError, match=r"cannot be written: .*16383"):
        images.write(tmp_path / "a.webp", np.zeros((1, 16384, 1)))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failed_write_changes_nothing(tmp_path, failure):
    path = tmp_path / "table.csv"
    path.write_text("before")
    expected = InputError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected), atomic(path) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".csv"
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["table.csv"]
    with atomic(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after" and os.listdir(tmp_path) == ["table.csv"]


def test_colour_equals_scikit_image():
    rgb = np.random.default_rng(4).random((7, 8, 3))
    ycbcr = skimage.color.rgb2ycbcr(rgb) / 255
    np.testing.assert_allclose(images.rgb_to_ycbcr(rgb), ycbcr, atol=1e-12)
    np.testing.assert_allclose(images.rgb_to_y(rgb), ycbcr[..., :1], atol=1e-12)
    np.testing.assert_allclose(images.ycbcr_to_rgb(ycbcr), rgb, atol=1e-12)
    gray = rgb[..., :1]
    np.testing.assert_allclose(
        images.rgb_to_y(gray), images.rgb_to_y(np.repeat(gray, 3, -1)), atol=1e-12
    )
    assert images.rgb_to_y(rgb.astype(np.float32)).dtype == np.float32
    for channels in (2, 4):
        with pytest.raises(InputError, match=rf"\(of shape \(7, 8, {channels}\)\) must be"):
            images.rgb_to_y(np.zeros((7, 8, channels)))
    for convert in (images.rgb_to_ycbcr, images.ycbcr_to_rgb):
        with pytest.raises(InputError, match=r"\(of shape \(7, 8, 1\)\) must be \(..., 3\)"):
            convert(gray)
        with pytest.raises(InputError, match=r"\(of uint8\) must hold floats in \[0, 1\]"):
            convert(np.zeros((7, 8, 3), np.uint8))


@pytest.mark.parametrize("size", [(321, 481), (63, 66), (64, 96), (95, 35)])
def test_centre_crop_is_pillows(size):
    values = np.random.default_rng(5).integers(0, 256, size, dtype=np.uint8)
    height, width = size
    rows, cols = height - height % 32, width - width % 32
    left, top = (width - cols) / 2, (height - rows) / 2
    expected = PIL.Image.fromarray(values).crop((left, top, left + cols, top + rows))
    np.testing.assert_array_equal(images.crop_to_multiple(values[..., None], 32)[..., 0], expected)
    top_left = images.crop_to_multiple(values[..., None], 32, anchor="top-left")
    np.testing.assert_array_equal(top_left[..., 0], values[:rows, :cols])
    batch = np.stack([values, 255 - values])[..., None]
    np.testing.assert_array_equal(images.crop_to_multiple(batch, 32)[0, ..., 0], expected)


def test_crop_needs_one_multiple():
    with pytest.raises(InputError, match=r"of 40x31.* at least 32"):
        images.crop_to_multiple(np.zeros((31, 40, 3)), 32)
    for multiple in (0, 2.5):
        with pytest.raises(InputError, match=rf"`multiple` \(={multiple}\) must be"):
            images.crop_to_multiple(np.zeros((31, 40, 3)), multiple)
    assert images.crop_to_multiple(np.zeros((31, 300, 3)), np.uint8(30)).shape == (30, 300, 3)
    with pytest.raises(InputError, match="`anchor` \\(='centre'\\) must be center or top-left"):
        images.crop_to_multiple(np.zeros((31, 40, 3)), 8, anchor="centre")


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match=r"pipe.png` must be a file: it would be replaced"):
        images.write(tmp_path / "pipe.png", np.zeros((2, 2, 1), np.float32))
    assert (tmp_path / "pipe.png").is_fifo()
