import concurrent.futures
import errno
import logging
import math
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsr import storage
from jaxsr.checkpoints import Checkpoints
from jaxsr.errors import InputError


class State(NamedTuple):
    params: Any
    opt_state: Any
    key: Any
    step: Any
    average: Any


def make_state(seed=0, impl=None):
    w_key, b_key = jax.random.split(jax.random.key(seed))
    params = {
        "conv": {"kernel": jax.random.normal(w_key, (3, 3, 32, 32))},
        "bias": jax.random.normal(b_key, (5,), jnp.bfloat16),
        "empty": {},
    }
    optimiser = optax.adam(1e-2)
    _, opt_state = optimiser.update(params, optimiser.init(params))
    special = np.array([np.nan, np.inf, -0.0, 1e-42], np.float32)
    key = jax.random.key(seed + 1, impl=impl)
    return State(params, opt_state, key, jnp.int32(7), {"none": None, "host": special})


def bits(tree):
    def of(x):
        x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        return str(x.dtype), x.shape, np.asarray(x).tobytes()

    return jax.tree.structure(tree), [of(x) for x in jax.tree.leaves(tree)]


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def saved(folder, *steps, keep=2):
    with Checkpoints(folder, keep=keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("like", [lambda x: x, abstract])
def test_a_state_comes_back_bit_for_bit(tmp_path, impl, like):
    state = make_state(impl=impl)
    with Checkpoints(tmp_path / "new" / "folder") as checkpoints:
        assert checkpoints.latest_step() is None
        checkpoints.save(3, state)
    with Checkpoints(tmp_path / "new" / "folder") as checkpoints:
        assert checkpoints.latest_step() == 3
        restored = checkpoints.restore(like(make_state(5, impl=impl)))
    assert bits(restored) == bits(state)
    assert jax.random.key_impl(restored.key) == jax.random.key_impl(state.key)
    np.testing.assert_array_equal(
        jax.random.normal(restored.key, 4), jax.random.normal(state.key, 4)
    )


def test_numpys_numbers_come_back_as_they_were(tmp_path):
    """Also where JAX's are of 32 bits."""
    tree = {"count": np.int64(2**40), "rate": np.float64(0.1), "many": np.arange(3) + 2**40}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, tree)
        restored = checkpoints.restore(tree)
        like = {name: jax.ShapeDtypeStruct(np.shape(x), x.dtype) for name, x in tree.items()}
        with pytest.raises(InputError, match=r"`like` \(of (int|float)64\) needs `jax_enable_x64`"):
            checkpoints.restore(like)
    assert bits(restored) == bits(tree)
    assert {name: type(x) for name, x in restored.items()} == {n: type(x) for n, x in tree.items()}


def test_doubles_of_one_process_among_several():
    """Restored on the host, whatever JAX's own types are."""
    for x in (np.arange(3) + 2**40, np.int64(2**40), np.float64(0.1)):
        assert (storage.host_target(x).dtype, storage.host_target(x).shape) == (x.dtype, x.shape)
    with pytest.raises(InputError, match="needs `jax_enable_x64`"):
        storage.host_target(jax.ShapeDtypeStruct((3,), np.int64))


def test_a_restored_array_is_placed_as_asked(tmp_path):
    saved(tmp_path, 1)
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), make_state()
    )
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(like)
    assert all(x.sharding == sharding for x in jax.tree.leaves(restored))


def test_donating_what_was_saved_leaves_the_checkpoint_alone(tmp_path):
    step = jax.jit(lambda x: x * 2 + 1, donate_argnums=0)
    x = jnp.arange(1000.0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, {"x": x})
        step(x).block_until_ready()
        restored = checkpoints.restore({"x": jax.ShapeDtypeStruct((1000,), jnp.float32)})
    np.testing.assert_array_equal(restored["x"], np.arange(1000.0))


@pytest.mark.parametrize("keep", [1, 2])
def test_the_latest_are_kept(tmp_path, keep):
    saved(tmp_path, 2, 10, 30, keep=keep)
    assert sorted(int(folder.name) for folder in tmp_path.iterdir()) == [2, 10, 30][-keep:]
    with Checkpoints(tmp_path, keep=keep) as checkpoints:
        assert bits(checkpoints.restore(make_state())) == bits(make_state(30))
        if keep == 2:
            assert bits(checkpoints.restore(make_state(), step=10)) == bits(make_state(10))
        with pytest.raises(InputError, match=r"holds no checkpoint of step 2$"):
            checkpoints.restore(make_state(), step=2)


def test_the_latest_step_is_written_once_and_earlier_ones_never(tmp_path):
    saved(tmp_path, 4, 8)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(8, make_state(99))
        assert bits(checkpoints.restore(make_state())) == bits(make_state(8))
        with pytest.raises(InputError, match=r"`step` \(=6\) must be after `.*8`$"):
            checkpoints.save(6, make_state(6))


def test_an_interrupted_save_is_ignored_and_swept_up(tmp_path):
    saved(tmp_path, 4)
    partial = tmp_path / "9.orbax-checkpoint-tmp-1"
    shutil.copytree(tmp_path / "4", partial)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 4
        assert bits(checkpoints.restore(make_state())) == bits(make_state(4))
    assert not partial.exists()


def test_a_full_disk_is_told_in_a_line_and_nothing_stays(tmp_path, monkeypatch, capfd):
    """Before TensorStore meets it; and where Orbax does, since somebody else was faster."""
    state = make_state()
    size = sum(len(array) for _, _, array in bits(state)[1])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        before = set(tmp_path.rglob("*"))
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=size))
        with pytest.raises(InputError, match=r"/2` cannot be written: it takes .* are free$"):
            checkpoints.save(2, state)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=size + 2**19))

        def fill(step, **_):
            (tmp_path / f"{step}.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(checkpoints._manager, "save", fill)
        with pytest.raises(InputError, match="/2` cannot be written: No space left on device"):
            checkpoints.save(2, state)
        assert set(tmp_path.rglob("*")) == before
        assert checkpoints.latest_step() == 1
    assert capfd.readouterr() == ("", "")


def test_checksums_that_cannot_be_written_leave_nothing_of_their_step(tmp_path, monkeypatch):
    saved(tmp_path, 1)
    before = set(tmp_path.rglob("*"))
    with Checkpoints(tmp_path) as checkpoints:

        def full(path):
            raise InputError(f"`{path}` cannot be written: No space left on device")

        monkeypatch.setattr("jaxsr.checkpoints.atomic", full)
        with pytest.raises(InputError, match=r"/2/checksums\.json` cannot be written"):
            checkpoints.save(2, make_state(2))
        assert checkpoints.latest_step() == 1
        assert bits(checkpoints.restore(make_state())) == bits(make_state(1))
    assert set(tmp_path.rglob("*")) == before


def test_a_run_killed_before_the_checksums_leaves_a_good_checkpoint(tmp_path):
    saved(tmp_path, 4)
    (tmp_path / "4" / "checksums.json").unlink()
    with Checkpoints(tmp_path) as checkpoints:
        assert bits(checkpoints.restore(make_state())) == bits(make_state(4))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lambda path: path.unlink()])
def test_damage_to_any_file_is_told_in_a_line_and_nothing_is_lost(tmp_path, damage, capfd):
    saved(tmp_path / "sound", 4, 8)
    sound = tmp_path / "sound" / "8"
    files = [path.relative_to(sound) for path in sound.rglob("*") if path.is_file()]
    files = [name for name in files if name.name != "checksums.json"]
    assert len(files) > 5
    for name in files:
        folder = tmp_path / "damaged"
        shutil.copytree(tmp_path / "sound", folder)
        if (folder / "8" / name).stat().st_size:
            damage(folder / "8" / name)
            with Checkpoints(folder) as checkpoints:
                assert checkpoints.latest_step() == 8
                with pytest.raises(InputError) as error:
                    checkpoints.restore(make_state())
                message = str(error.value)
                assert message.startswith(f"`{folder / '8'}` cannot be restored, `{name}` in it is")
                assert message.endswith("delete that folder to go on from step 4")
                assert (folder / "8").exists()
            shutil.rmtree(folder / "8")
            with Checkpoints(folder) as checkpoints:
                assert bits(checkpoints.restore(make_state())) == bits(make_state(4))
        shutil.rmtree(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [{}, {"weights.bin": b"abc"}, {"checksums.json": b"{"}])
def test_a_foreign_folder_is_refused(tmp_path, content):
    (tmp_path / "5").mkdir()
    for name, data in content.items():
        (tmp_path / "5" / name).write_bytes(data)
    refused = pytest.raises(InputError, match=r"delete that folder to start afresh$")
    with Checkpoints(tmp_path) as checkpoints, refused as error:
        checkpoints.restore(make_state())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": jnp.float32(0)}, r"must hold float32\[\] as `.step`: it holds int32\[\]"),
        ({"step": jnp.zeros(3, jnp.int32)}, r"must hold int32\[3\] as `.step`: it holds int32\[\]"),
        ({"average": None}, r"must hold nothing as `.average\['host'\]`: it holds float32\[4\]"),
        ({"opt_state": jnp.zeros(2)}, r"must hold float32\[2\] as `.opt_state`: it holds nothing"),
        ({"key": jax.random.key(0, impl="rbg")}, r"must hold key<rbg>\[\] as `.key`: it holds key"),
    ],
)
def test_another_tree_is_refused_by_name(tmp_path, change, message):
    saved(tmp_path, 4)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match=message) as error:
            checkpoints.restore(make_state()._replace(**change))
        assert "delete" not in str(error.value)  # the checkpoint is sound


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    saved(tmp_path, 4)

    def short(path):
        raise MemoryError

    with Checkpoints(tmp_path) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(pathlib.Path, "read_bytes", short)
            with pytest.raises(InputError, match="4` is too large for this machine") as error:
                checkpoints.restore(make_state())
        assert "delete" not in str(error.value)
        checkpoints.restore(make_state())


def test_bad_folders_and_settings_are_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="file` cannot hold checkpoints: "):
        Checkpoints(tmp_path / "file")
    with pytest.raises(InputError, match=r"`keep` \(=0\) must be at least 1"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(InputError, match=r"`keep` \(=1.5\) must be an integer"):
        Checkpoints(tmp_path, keep=1.5)
    with Checkpoints(tmp_path / "steps") as checkpoints:
        for step, said in ((1.5, "must be an integer"), (-1, "must be at least 0")):
            with pytest.raises(InputError, match=rf"`step` \(={step}\) {said}"):
                checkpoints.save(step, make_state())
        with pytest.raises(InputError, match=r"`\['b'\]` \(of int\) must be an array"):
            checkpoints.save(1, {"a": jnp.zeros(2), "b": 3})
    assert list((tmp_path / "steps").iterdir()) == []
    with Checkpoints(tmp_path / "empty") as checkpoints:
        with pytest.raises(InputError, match=r"empty` holds no checkpoint$"):
            checkpoints.restore(make_state())
        shutil.rmtree(tmp_path / "empty")
        (tmp_path / "empty").write_text("in the way")
        with pytest.raises(InputError, match="1` cannot be written: "):
            checkpoints.save(1, make_state())


def test_saving_is_silent_and_leaves_logging_as_it_was(tmp_path, capfd):
    level = logging.getLogger("absl").level
    saved(tmp_path, 1, 2, 3)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("absl").level == level


def test_the_best_outlives_the_latest(tmp_path):
    with Checkpoints(tmp_path, keep=2, keep_best=True) as checkpoints:
        for step, score in enumerate((3.0, 1.0, 2.0, 1.0, 3.0, 0.5, 0.1)):
            checkpoints.save(step, {"a": jnp.full(2, step)}, score=score)
            kept = {int(p.name) for p in tmp_path.iterdir()}
            assert kept == {max(0, step - 1), step, 0 if step < 4 else 4}
        assert checkpoints.best_step() == 4  # of equal ones the latest
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (6, None)


def test_a_reader_leaves_a_writer_alone(tmp_path):
    saved(tmp_path, 4)
    unfinished = tmp_path / "9.orbax-checkpoint-tmp-1"
    shutil.copytree(tmp_path / "4", unfinished)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert bits(checkpoints.restore(make_state())) == bits(make_state(4))
    assert unfinished.exists()  # as it would not after a writer, see above
    with Checkpoints(tmp_path / "none", read_only=True) as checkpoints:
        assert checkpoints.latest_step() is None
    assert not (tmp_path / "none").exists()


def test_a_score_that_is_no_number_is_the_lowest(tmp_path):
    with Checkpoints(tmp_path, keep=1, keep_best=True) as checkpoints:
        for step, score in enumerate((np.float32(30), math.nan, 29.0, 28.0)):
            checkpoints.save(step, make_state(step), score=score)
        assert checkpoints.best_step() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"0", "3"}


def test_a_folder_that_was_removed_is_made_anew_or_told(tmp_path):
    """Orbax does the one or the other, by how fast its threads are."""
    state = make_state()
    with Checkpoints(tmp_path / "a") as checkpoints:
        shutil.rmtree(tmp_path / "a")
        try:
            checkpoints.save(0, state)
        except InputError as error:
            assert "0` cannot be written: " in str(error)
        else:
            assert bits(checkpoints.restore(state)) == bits(state)


def test_saving_in_threads_leaves_logging_as_it_was(tmp_path):
    logger, state = logging.getLogger("absl"), make_state()
    level = logger.level

    def save(i):
        with Checkpoints(tmp_path / str(i)) as checkpoints:
            for step in range(3):
                checkpoints.save(step, state)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(8)))
    assert logger.level == level


@pytest.mark.parametrize("name", ["a\\b", os.fsdecode(b"caf\xe9"), "\udc80/below"])
def test_paths_that_arrays_cannot_be_written_to(tmp_path, name):
    with pytest.raises(InputError, match="to hold checkpoints"):
        Checkpoints(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_one_writer_at_a_time(tmp_path):
    """A second would sweep up what the first is about to write."""
    with Checkpoints(tmp_path) as first:
        with pytest.raises(InputError, match="is in use by another process"):
            Checkpoints(tmp_path)
        first.save(1, {"x": jnp.ones(3)})
    with Checkpoints(tmp_path) as second:
        assert second.latest_step() == 1
