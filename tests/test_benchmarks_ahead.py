"""The kernels of a loop and their bytes, read from a compiled program's text."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import ahead
from jaxsr import training
from jaxsr.models import LapSRN, SkipUNet
from tests.commands import main

pytestmark = pytest.mark.usefixtures("compiled_quickly")

PROGRAM = """HloModule jit_loop, is_scheduled=true

%fused (a: f32[2,8]) -> f32[2,8] {
  %a = f32[2,8]{1,0} parameter(0)
  ROOT %twice = f32[2,8]{1,0} add(%a, %a)
}

%body.1 (state: (s32[], f32[2,8], pred[3], bf16[4,2])) -> (s32[], f32[2,8], pred[3], bf16[4,2]) {
  %state = (s32[], f32[2,8]{1,0}, pred[3]{0}, /*index=3*/bf16[4,2]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[2,8]{1,0} get-tuple-element(%state), index=1
  %mask = pred[3]{0} get-tuple-element(%state), index=2
  %half = bf16[4,2]{1,0} get-tuple-element(%state), index=3
  %flat = f32[16]{0} bitcast(%x)
  %sum = f32[2,8]{1,0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(loop)/add"}
  %conv = (bf16[4,2], u8[64]) custom-call(%half, %flat), custom_call_target="__cudnn$convForward"
  %out = bf16[4,2]{1,0} get-tuple-element(%conv), index=0
  ROOT %next = (s32[], f32[2,8]{1,0}, pred[3]{0}, bf16[4,2]{1,0}) tuple(%i, %sum, %mask, %out)
}

%condition (state: (s32[], f32[2,8])) -> pred[] {
  ROOT %less = pred[] constant(true)
}

ENTRY %main (x: (s32[], f32[2,8], pred[3], bf16[4,2])) -> f32[2,8] {
  %x.1 = (s32[], f32[2,8]{1,0}, pred[3]{0}, bf16[4,2]{1,0}) parameter(0)
  %before = f32[999]{0} broadcast(%x.1), dimensions={}
  %loop = (s32[], f32[2,8]{1,0}) while(%x.1), condition=%condition, body=%body.1
  ROOT %end = f32[2,8]{1,0} get-tuple-element(%loop), index=1
}
"""


CALL = " call(%x.1), to_apply=%called"
WHILE = " while(%x.1), condition=%condition, body=%body.1"
CALLED = f"%called (x.1: f32[2,8]) -> f32[2,8] {{\n  ROOT %loop = f32[2,8]{{1,0}}{WHILE}\n}}\n\n"


@pytest.mark.parametrize(
    "program", [PROGRAM, PROGRAM.replace(WHILE, CALL).replace("ENTRY", f"{CALLED}ENTRY")]
)
def test_kernels_of_a_program(program):
    """Two floats of 64 bytes; 16 bytes of halves and 64 of a float, 16 and the workspace of 64."""
    assert program.count(WHILE) == 1
    assert ahead.kernels(program) == [
        ("fusion", 64 + 64),
        ("__cudnn$convForward", 16 + 64 + 16 + 64),
    ]


def test_kernels_of_what_the_compiler_makes():
    """One kernel that reads and writes 4096 bytes, beside the loop's counting."""

    @jax.jit
    def loop(x, count):
        return jax.lax.fori_loop(0, count, lambda _, x: jnp.tanh(x) + 1, x)

    program = loop.lower(jnp.ones((32, 32)), 3).compile().as_text()
    found = [kernel.nbytes for kernel in ahead.kernels(program) if kernel.nbytes > 1000]
    assert found == [2 * 4096]


def test_bad_input_is_one_line(tmp_path, capsys):
    nothing, other = tmp_path / "none.txtpb", tmp_path / "some.txtpb"
    other.write_text("no GPU")
    for path, said in ((nothing, "No such file or directory"), (other, "`--target` (=")):
        assert main(ahead, ["--target", str(path)]) == 2
        error = capsys.readouterr().err
        assert said in error and "Traceback" not in error
    assert main(ahead, ["--target", "x", "--sizes", "60x60"]) == 2
    assert "`--sizes` (=60x60)" in capsys.readouterr().err


@pytest.mark.parametrize("work", ["dip", "training"])
def test_a_program_for_a_gpu_is_counted(work, monkeypatch):
    """With the CPU in its place: one program of the work, whose loop is found."""
    cpu = jax.sharding.NamedSharding(jax.make_mesh((1,), ("x",)), jax.sharding.PartitionSpec())
    monkeypatch.setattr(ahead, "COMPILER", {})
    if work == "dip":
        small = {"down": (4,), "up": (4,), "skip": (2,)}
        monkeypatch.setattr(ahead, "SkipUNet", lambda **kw: SkipUNet(**small, **kw))
        found = ahead.of_dip((64, 64), "float32", False, cpu)
    else:
        monkeypatch.setattr(ahead, "LapSRN", lambda **kw: LapSRN(depth=1, features=4, **kw))
        config = training.Config(batch=2, size=16)
        monkeypatch.setattr(ahead.training, "Config", lambda: config)
        found = ahead.of_training("float32", cpu)
    assert found["kernels"] > 10 and found["convolutions"] == 0
    assert 0 < found["gbytes"] < 1 and found["memory_bytes"] > 64 * 64 * 4
