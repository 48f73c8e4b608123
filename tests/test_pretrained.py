import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import pretrained
from jaxsr.errors import InputError
from jaxsr.models import LapSRN

SMALL = LapSRN(factor=2, depth=1, features=4)


def drawn(model, seed=0):
    luma = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), luma)
    rng = np.random.RandomState(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(-1, 1, x.shape), x.dtype), shapes)


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(
    "settings", [{}, {"factor": 8, "depth": 2, "spread": 3}, {"pyramid": False, "residual": False}]
)
def test_a_network_comes_back_bit_for_bit(tmp_path, settings):
    model = SMALL.clone(**settings)
    variables = drawn(model)
    special = jnp.float32([np.nan, -0.0, 1e-42, np.inf])
    variables["params"]["input"]["bias"] = special
    pretrained.save(tmp_path / "new" / "folder", model.clone(dtype=jnp.bfloat16), variables)
    found, restored = pretrained.load(tmp_path / "new" / "folder")
    assert found == model, "all settings but `dtype`"
    assert_same_bits(restored, variables)


def test_later_weights_take_the_place_of_the_earlier(tmp_path):
    for seed in (1, 3, 10):
        pretrained.save(tmp_path, SMALL, drawn(SMALL, seed))
    assert_same_bits(pretrained.load(tmp_path)[1], drawn(SMALL, 10))
    assert sorted(folder.name for folder in (tmp_path / "weights").iterdir()) == ["1", "2"]


@pytest.fixture
def folder(tmp_path):
    """A saved network."""
    pretrained.save(tmp_path, SMALL, drawn(SMALL))
    return tmp_path


def refusal(folder):
    """The one line that a folder is refused with."""
    with pytest.raises(InputError) as error:
        pretrained.load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_folder_is_refused_and_not_made(tmp_path):
    missing = tmp_path / "none"
    assert refusal(missing) == (
        f"`{missing}` holds no trained network (model.json: No such file or directory)"
    )
    assert not missing.exists()
    assert refusal(tmp_path).startswith(f"`{tmp_path}` holds no trained network")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe{}",
        b"[1, 2]",
        b'{"network": "LapSRN"}',
        b'{"network": "EDSR", "features": 64}',
        pytest.param("factor: 3", id="factor"),
        pytest.param("depth: null", id="depth"),
        pytest.param("features: -1", id="features"),
        pytest.param("features: 0", id="no-features"),
        pytest.param(b"[" * 100_000, id="depths"),
        pytest.param("activation: 1", id="another"),
    ],
)
def test_a_damaged_description_is_refused(folder, content):
    record = folder / "model.json"
    if isinstance(content, str):
        name, value = content.split(": ")
        settings = json.loads(record.read_text()) | {name: json.loads(value)}
        content = json.dumps(settings).encode()
    record.write_bytes(content)
    assert refusal(folder).startswith(f"`{record}` is damaged or of another program: ")


def test_a_cut_description_is_refused(folder):
    record = folder / "model.json"
    record.write_bytes(record.read_bytes()[:40])
    assert refusal(folder).startswith(f"`{record}` is damaged or of another program: ")


def test_weights_of_another_shape_are_refused(folder):
    record = folder / "model.json"
    settings = json.loads(record.read_text())
    for change, message in (
        ({"features": 8}, "must hold float32[8] as"),
        ({"factor": 4}, "must hold float32[4] as"),
        ({"residual": False}, "must hold nothing as"),
    ):
        record.write_text(json.dumps(settings | change))
        line = refusal(folder)
        assert line.startswith(f"`{folder / 'weights' / '0'}`, a checkpoint of another state, ")
        assert message in line


def test_damaged_and_missing_weights_are_refused(folder):
    weights = folder / "weights" / "0"
    files = [path for path in weights.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert refusal(folder).startswith(f"`{weights}` cannot be restored, ")
    weights.rename(folder / "elsewhere")
    assert refusal(folder) == f"`{folder / 'weights'}` holds no checkpoint"


def test_digest_tells_weights_apart():
    weights = {"params": {"b": np.arange(4.0, dtype=np.float32), "a": np.ones((1, 2), np.float32)}}
    expected = hashlib.sha256(b"".join(weights["params"][k].tobytes() for k in "ab")).hexdigest()
    assert pretrained.digest(weights) == expected
    weights["params"]["b"][3] += 1e-6
    assert pretrained.digest(weights) != expected


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    class Other(LapSRN):
        pass

    variables = drawn(SMALL)
    double = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    for model, weights, said in (
        (
            Other(factor=2, depth=1, features=4),
            variables,
            r"network \(=Other\) must be of LapSRN, ",
        ),
        (SMALL, double, r"weights \(of float64\) must be of float32"),
        (SMALL, {"params": {}}, r"weights \(of none\)"),
        (SMALL.clone(depth=3), variables, r"must be those of the network \(="),
        (SMALL.clone(factor=3), variables, r"`factor` \(=3\) must be 2, 4 or 8"),
        (SMALL.clone(depth="one"), variables, r"`depth` \(=one\) must be an integer"),
        (SMALL.clone(depth=np.float32(1.5)), variables, r"`depth` \(=1.5\) must be an integer"),
    ):
        with pytest.raises(InputError, match=said):
            pretrained.save(tmp_path / "folder", model, weights)
    assert list(tmp_path.iterdir()) == []
    pretrained.save(tmp_path, SMALL.clone(depth=np.int64(SMALL.depth)), variables)
    assert pretrained.load(tmp_path)[0] == SMALL
