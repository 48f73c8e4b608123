import http.server
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading

import numpy as np
import PIL.Image
import pytest

from jaxsr.datasets import bsds300, bsds300_archive, bsds300_builder, folders
from jaxsr.errors import InputError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """BSDS300's layout in full, with pictures of a few pixels; ids out of order, as there."""
    root = tmp_path_factory.mktemp("tiny") / "BSDS300"
    rng = np.random.default_rng(0)
    for split, count in bsds300_archive.COUNTS.items():
        (root / "images" / split).mkdir(parents=True)
        ids = rng.permutation(900)[:count] + 100
        (root / f"iids_{split}.txt").write_text("\n".join(map(str, ids)) + "\n")
        for i, key in enumerate(ids):
            shape = (9, 12, 3) if i % 3 else (12, 9, 3)
            picture = PIL.Image.fromarray(rng.integers(0, 256, shape, np.uint8))
            picture.save(root / "images" / split / f"{key}.jpg")
    return root


@pytest.fixture(scope="module")
def packed(tiny):
    path = tiny.parent.parent / "downloaded.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tiny, "BSDS300")
    return path


@pytest.fixture
def copy(tiny, tmp_path):
    """One to damage."""
    return shutil.copytree(tiny, tmp_path / "BSDS300")


def files(root, split):
    keys = (root / f"iids_{split}.txt").read_text().split()
    return {key: root / "images" / split / f"{key}.jpg" for key in keys}


def pixels(path):
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


def assert_same(images, expected):
    assert len(images) == len(expected)
    for image, path in zip(images, expected, strict=True):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, pixels(path))


def test_all_of_bsds300_has_pillows_pixels(shared, tmp_path):
    source = shared / "data" / "BSDS300"
    train = bsds300.load("train", data_dir=tmp_path, manual_dir=source)
    test = bsds300.load("test", data_dir=tmp_path, manual_dir="nowhere")
    assert (len(train), len(test)) == (200, 100)
    assert_same(train, files(source, "train").values())
    assert_same(test, files(source, "test").values())
    assert {image.shape for image in train + test} == {(321, 481, 3), (481, 321, 3)}


def test_the_builder_keeps_files_and_ids_without_tensorflow(tiny, packed, tmp_path, monkeypatch):
    class WithoutTensorFlow:
        @staticmethod
        def find_spec(name, path=None, target=None):
            assert name != "tensorflow"

    monkeypatch.setattr(sys, "meta_path", [WithoutTensorFlow, *sys.meta_path])
    data = bsds300_builder.BSDS300(source=packed, data_dir=tmp_path)
    data.download_and_prepare()
    assert data.info.full_name == "bsds300/1.0.0"
    assert {name: s.num_examples for name, s in data.info.splits.items()} == bsds300_archive.COUNTS
    assert "Martin" in data.info.citation
    for split in data.info.splits:
        expected = files(tiny, split)
        found = list(data.as_data_source(split))
        assert [example["id"].decode() for example in found] == list(expected)
        assert_same([example["image"] for example in found], expected.values())


def test_it_is_prepared_once_and_in_the_users_cache(packed, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = bsds300.load("test", manual_dir=packed)
    assert (tmp_path / "jaxsr" / "datasets" / "bsds300" / "1.0.0" / "dataset_info.json").exists()
    monkeypatch.setattr(bsds300_archive, "read", None)
    assert_same(bsds300.load("test"), files(tiny, "test").values())
    assert_same(first, files(tiny, "test").values())
    assert capsys.readouterr().out == ""


def test_archives_and_folders_are_read_alike(tiny, packed, tmp_path):
    expected = {
        split: {key: path.read_bytes() for key, path in files(tiny, split).items()}
        for split in bsds300_archive.COUNTS
    }
    for source in (tiny, tiny.parent, packed):
        assert bsds300_archive.read(source) == expected
    for name, mode, prefix in (("a.tar", "w", "."), ("b.tar.xz", "w:xz", "x/BSDS300")):
        with tarfile.open(tmp_path / name, mode) as archive:
            archive.add(tiny, prefix)
        assert bsds300_archive.read(tmp_path / name) == expected
    shutil.copy(packed, tmp_path / "BSDS300-images.tgz")
    assert bsds300_archive.read(tmp_path) == expected
    assert [list(split) for split in bsds300_archive.read(packed).values()] == [
        list(split) for split in expected.values()
    ]


def test_nothing_of_an_archive_is_written(tiny, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tiny, "BSDS300")
        for name in ("../out.jpg", "BSDS300/images/../../../out.jpg", str(tmp_path / "out.jpg")):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("BSDS300/images/train/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    bsds300_archive.read(tmp_path / "a.tar")
    assert os.listdir(tmp_path) == ["a.tar"]
    assert not (tmp_path.parent / "out.jpg").exists()


@pytest.fixture
def serve(monkeypatch):
    """`serve(body, length, code)` answers at the archive's address."""
    answer = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["code"])
            self.send_header("Content-Length", str(answer["length"]))
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *args):
            pass

    def serve(body, *, length=None, code=200):
        answer.update(body=body, length=len(body) if length is None else length, code=code)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/BSDS300-images.tgz"
        monkeypatch.setattr(bsds300_archive, "ADDRESS", address)
        yield serve
        server.shutdown()
        thread.join()


def test_the_archive_is_downloaded(packed, tiny, serve, tmp_path):
    serve(packed.read_bytes())
    images = bsds300.load("train", data_dir=tmp_path)
    assert_same(images, files(tiny, "train").values())


def test_a_failed_download_leaves_nothing_to_believe(packed, tiny, serve, tmp_path):
    body = packed.read_bytes()
    cases = {
        "1000 of 9999 bytes came": {"body": body[:1000], "length": 9999},
        "Not Found": {"body": b"", "code": 404},
        "is cut off or not an archive": {"body": b"<html>Log in</html>"},
    }
    for message, answer in cases.items():
        serve(**answer)
        with pytest.raises(InputError, match=message) as info:
            bsds300.load("train", data_dir=tmp_path)
        assert bsds300_archive.ADDRESS in str(info.value) and "\n" not in str(info.value)
    serve(body)
    assert len(bsds300.load("train", data_dir=tmp_path)) == 200


def test_without_a_network_two_ways_out_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(bsds300_archive, "ADDRESS", "http://127.0.0.1:9/BSDS300-images.tgz")
    with pytest.raises(InputError, match=r"cannot be downloaded \(.*refused\): get http.* by hand"):
        bsds300.load("train", data_dir=tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9999])
def test_a_cut_off_archive_is_refused(packed, tmp_path, share):
    body = packed.read_bytes()
    (tmp_path / "cut.tgz").write_bytes(body[: int(share * len(body))])
    with pytest.raises(InputError, match=r"cut\.tgz` is (cut off|not all of BSDS300)") as info:
        bsds300.load("train", data_dir=tmp_path, manual_dir=tmp_path / "cut.tgz")
    assert "\n" not in str(info.value)


def test_an_incomplete_folder_is_refused(copy, tmp_path):
    def refused(message, source=copy):
        with pytest.raises(InputError, match=message):
            bsds300.load("train", data_dir=tmp_path / "data", manual_dir=source)

    refused("nowhere` must be BSDS300's archive .*: it does not exist", "nowhere")
    refused("images` must be .*: iids_train.txt is not in it", copy / "images")
    path = list(files(copy, "train").values())[7]
    body = path.read_bytes()
    path.write_bytes(body[: len(body) // 2])
    refused(f"{path.name} is damaged or cut off")
    path.unlink()
    refused(f"images/train/{path.name} is missing, of train 1 in all")
    path.write_bytes(body)
    keys = (copy / "iids_test.txt").read_text().split()
    (copy / "iids_test.txt").write_text("\n".join([*keys[1:], keys[1]]))
    refused("iids_test.txt lists 99 images, not 100")
    (copy / "iids_test.txt").unlink()
    refused("iids_test.txt lists 0 images, not 100")
    assert not list((tmp_path / "data" / "bsds300").iterdir())


def test_a_killed_preparation_is_not_believed(tiny, packed, tmp_path):
    program = f"""
import itertools, os, signal
from jaxsr.datasets import bsds300, bsds300_builder
examples = bsds300_builder.BSDS300._generate_examples
def some(self, files):
    yield from itertools.islice(examples(self, files), 50)
    os.kill(os.getpid(), signal.SIGKILL)
bsds300_builder.BSDS300._generate_examples = some
bsds300.load("train", data_dir={str(tmp_path)!r}, manual_dir={str(packed)!r})
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert result.returncode == -signal.SIGKILL
    assert [path.name[:10] for path in (tmp_path / "bsds300").iterdir()] == ["incomplete"]
    images = bsds300.load("train", data_dir=tmp_path, manual_dir=packed)
    assert_same(images, files(tiny, "train").values())


def test_two_may_prepare_at_once(tiny, packed, tmp_path, monkeypatch):
    read = bsds300_archive.read

    def read_late(source):
        monkeypatch.setattr(bsds300_archive, "read", read)
        bsds300.load("test", data_dir=tmp_path, manual_dir=source)
        return read(source)

    monkeypatch.setattr(bsds300_archive, "read", read_late)
    images = bsds300.load("train", data_dir=tmp_path, manual_dir=packed)
    assert_same(images, files(tiny, "train").values())


def test_damaged_prepared_data_are_named(packed, tmp_path):
    bsds300.load("train", data_dir=tmp_path, manual_dir=packed)
    folder = tmp_path / "bsds300" / "1.0.0"
    for name in ("bsds300-train.array_record-00000-of-00001", "dataset_info.json"):
        path = folder / name
        body = path.read_bytes()
        for damaged in (body[: len(body) // 2], b""):
            path.write_bytes(damaged)
            with pytest.raises(
                InputError, match=r"bsds300` cannot be read: .*; if its files are damaged"
            ) as info:
                bsds300.load("train", data_dir=tmp_path)
            assert "\n" not in str(info.value)
        path.unlink()
        with pytest.raises(
            InputError, match=r"bsds300` cannot be read: .*; if its files are damaged"
        ):
            bsds300.load("train", data_dir=tmp_path)
        path.write_bytes(body)


def test_what_else_is_refused(packed, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"`split` \(=val\) must be one of train, test"):
        bsds300.load("val", data_dir=tmp_path)
    with pytest.raises(InputError, match=r"cannot be prepared in `.*downloaded.tgz`: .*directory"):
        bsds300.load("train", data_dir=packed, manual_dir=packed)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"needs tensorflow_datasets.*: pip install -e '.\[data\]"):
        bsds300.load("train", data_dir=tmp_path)


def test_importing_is_light():
    program = "from jaxsr.datasets import bsds300, folders; import sys; "
    program += "print('tensorflow_datasets' in sys.modules, 'jax' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "False"]


def test_a_folder_is_read_as_it_is(tmp_path):
    rng = np.random.default_rng(0)
    gray, rgb, rgba = (rng.integers(0, 256, (5, 7, c), np.uint8) for c in (1, 3, 4))
    deep = rng.integers(0, 2**16, (5, 7), np.uint16)
    PIL.Image.fromarray(rgb).save(tmp_path / "b.PNG")
    PIL.Image.fromarray(gray[..., 0]).save(tmp_path / "a.png")
    PIL.Image.fromarray(rgba).save(tmp_path / "d.tif")
    PIL.Image.fromarray(deep).save(tmp_path / "c.png")
    PIL.Image.fromarray(rgb).save(tmp_path / "e.jpg")
    (tmp_path / "f.txt").write_text("about these images")
    (tmp_path / "._a.png").write_bytes(b"another system's")
    (tmp_path / "inner").mkdir()
    PIL.Image.fromarray(rgb).save(tmp_path / "inner" / "a.png")
    images = folders.load(tmp_path)
    expected = [gray, rgb, np.rint(deep[..., None] / 257).astype(np.uint8), rgba[..., :3]]
    for image, values in zip(images, [*expected, pixels(tmp_path / "e.jpg")], strict=True):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, values)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="holds no image file"):
        folders.load(tmp_path)
    with pytest.raises(InputError, match="nowhere` must be a folder of images: no such file"):
        folders.load(tmp_path / "nowhere")
    PIL.Image.new("RGB", (64, 64), "red").save(tmp_path / "whole.png")
    body = (tmp_path / "whole.png").read_bytes()
    with pytest.raises(InputError, match=r"whole\.png` must be a folder of images: not a dir"):
        folders.load(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes(body[: len(body) // 2])
    with pytest.raises(InputError, match=r"cut\.png` is damaged or cut off"):
        folders.load(tmp_path)
