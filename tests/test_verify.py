# SPDX-License-Identifier: MIT
"""crnn verify: this build has the package's hashes, whatever is registered is verified, and a change names its part."""

import platform
import re
import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
from model_tools import crnn_command, environment, run_python

import crnn
from crnn import cli, optim
from crnn._core import cells as core
from crnn._core import dispatch
from crnn.io import registry
from crnn.models.files import from_bytes
from crnn.models.tagger import SequenceTagger
from crnn.nn import init
from crnn.nn.cells import CELLS
from crnn.nn.precision import PRECISIONS, TRAINING
from crnn.verification import checker, renew, samples
from crnn.verification.cells import TOGETHER
from crnn.verification.digest import Digest, chained
from crnn.verification.hashes import HASHES
from crnn.verification.kinds import KINDS
from crnn.verification.parts import all_parts

pytestmark = pytest.mark.thread_unsafe  # the instruction set and standard output are the process's

README = Path(__file__).parents[1] / "README.md"
PAGE = README.parent / "docs" / "verify.md"
HASH = chained(list(HASHES.items()))


# ---- the promise -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_this_build_has_the_hashes_of_the_package(isa, threads):
    if isa == "generic" and threads != 2:
        pytest.skip("plain C takes six times as long: two threads here, three where the command is tested")
    result = crnn.verify(threads=threads)
    assert result.first_difference is None
    assert (result.ok, result.hash, result.expected) == (True, HASH, HASH)
    assert (result.isa, result.threads) == (isa, threads)


def test_the_readme_prints_the_hash():
    if not README.exists():
        pytest.skip("this installation has no README")
    assert re.findall(r"\b[0-9a-f]{64}\b", README.read_text("utf-8")) == [HASH]


@pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of this tree")
def test_the_page_describes_every_part_and_has_runs_of_the_hash():
    page = PAGE.read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \| .* \|$", page.partition("## Where")[0], re.M)
    described = [name for row in rows for name in re.findall(r"`(.+?)( \.\.\.)?`", row)]

    def describes(name, more, part):
        return part == name or (bool(more) and part.startswith(name + " "))

    assert [part for part in HASHES if not any(describes(*name, part) for name in described)] == []
    assert [name for name, more in described if not any(describes(name, more, part) for part in HASHES)] == []
    assert f"| `{HASH[:12]}` |" in page


def test_an_instruction_set_is_used_for_the_verification_only(any_isa):
    *others, best = dispatch.available_isas()
    other = others[-1] if others else best  # of several sets the fastest but one: plain C takes six times as long
    dispatch.use_isa(best)
    seen = []
    result = crnn.verify(isa=other, on_part=lambda part: seen.append((part, dispatch.isa())))
    assert result.ok
    assert result.isa == other
    assert dispatch.isa() == best
    assert tuple(part for part, _ in seen) == result.parts
    assert {isa for _, isa in seen} == {other}


def test_the_instruction_set_comes_back_after_an_exception(any_isa):
    def interrupt(part):
        raise KeyboardInterrupt

    before = dispatch.isa()
    with pytest.raises(KeyboardInterrupt):
        crnn.verify(isa="generic", on_part=interrupt)
    assert dispatch.isa() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"isa": "avx1024"}, "instruction set: expected one of generic.*got 'avx1024'"),
        ({"threads": 0}, "threads: expected an integer of at least 1, got 0"),
        ({"threads": True}, "threads: expected an integer of at least 1, got True"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        crnn.verify(**arguments)


# ---- everything registered is verified -------------------------------------------------------------------------


def test_every_entry_of_every_list_is_a_part():
    names = [f"initial weights {rule}" for rule in init.RULES]
    names += [f"schedule {schedule}" for schedule in optim.UPDATE_SCHEDULES]
    names += [f"optimizer {rule}" for rule in optim.RULES]
    names += [f"cell {cell}" for cell in core.CELLS]
    names += [f"precision {precision}" for precision in PRECISIONS]
    names += [f"training {precision}" for precision in TRAINING]
    for cell in core.CELLS:
        if cell not in TOGETHER:
            names += [f"precision {precision} {cell}" for precision in PRECISIONS]
            names += [f"training {precision} {cell}" for precision in TRAINING]
    names += [f"kind {kind}" for kind in registry.kinds() if hasattr(crnn, kind)]
    assert list(all_parts()) == [*names, "model file", "learners"] == list(HASHES)
    assert len(CELLS) > 4
    assert len(KINDS) > 5


def test_a_new_cell_has_no_expected_hash_and_fails(monkeypatch):
    monkeypatch.setitem(CELLS, "peephole_lstm", CELLS["lstm"])
    monkeypatch.setattr(checker, "all_parts", lambda: {n: p for n, p in all_parts().items() if "lstm" in n})
    result = crnn.verify()
    assert not result.ok
    assert result.first_difference.name == "cell peephole_lstm"
    assert result.first_difference.expected is None


def test_a_new_kind_without_a_recipe_fails_and_says_where_one_goes(monkeypatch):
    monkeypatch.setitem(registry._builders, "SequenceRanker", SequenceTagger.from_contents)
    part = all_parts()["kind SequenceRanker"]
    (result,) = checker.compare({"kind SequenceRanker": part}, {"kind SequenceRanker": "0" * 64}, 1)
    assert not result.ok
    assert result.error == "LookupError: SequenceRanker: expected a recipe in crnn/verification/kinds.py, found none"


def test_a_kind_of_the_users_own_is_not_verified(monkeypatch):
    class Mine(crnn.RNN, kind="Mine"):
        pass

    try:
        assert "Mine" in registry.kinds()
        assert "kind Mine" not in all_parts()
    finally:
        del registry._builders["Mine"]


def test_a_part_that_is_expected_and_does_not_exist_fails():
    (result,) = checker.compare({}, {"cell lstm": HASHES["cell lstm"]}, 1)
    assert not result.ok
    assert result.error == "no such part in this build"


# ---- a difference is named -------------------------------------------------------------------------------------


def perturbed(array):
    """Move one element to the next number."""
    array[7] = np.nextafter(array[7], 2, dtype=array.dtype)


def perturb_adagrad(monkeypatch):
    step = optim.Adagrad._step

    def _step(self, params, *rest):
        step(self, params, *rest)
        perturbed(params)

    monkeypatch.setattr(optim.Adagrad, "_step", _step)


def perturb_gru(monkeypatch):
    initialise = CELLS["gru"].initialise_bias

    def initialise_bias(bias, *rest):
        initialise(bias, *rest)
        bias[7] += 2.0**-20

    monkeypatch.setattr(CELLS["gru"], "initialise_bias", staticmethod(initialise_bias))


def perturb_tagger(monkeypatch):
    fit = crnn.SequenceTagger.fit

    def fit_and_perturb(self, *rest, **options):
        log = fit(self, *rest, **options)
        perturbed(self.flat_params)
        return log

    monkeypatch.setattr(crnn.SequenceTagger, "fit", fit_and_perturb)


def perturb_identity(monkeypatch):
    monkeypatch.setitem(init.RULES, "identity", lambda draw, shape: np.eye(shape[0]) * (1 + 2.0**-23))


@pytest.mark.parametrize(
    ("perturb", "name"),
    [
        (perturb_identity, "initial weights identity"),
        (perturb_adagrad, "optimizer adagrad"),
        (perturb_gru, "cell gru"),
        (perturb_tagger, "kind SequenceTagger"),
    ],
)
def test_one_perturbed_weight_names_its_part(monkeypatch, capsys, perturb, name):
    perturb(monkeypatch)
    assert cli.main(["verify"]) == 1
    out, err = capsys.readouterr()
    different = [line for line in out.splitlines() if not line.startswith("ok ")]
    assert re.fullmatch(rf"DIFFERS  {name} +[0-9a-f]{{64}}", different[0])
    assert re.fullmatch("[0-9a-f]{64}", different[-1])
    assert different[-1] != HASH
    assert re.fullmatch(rf"crnn verify: {name}: expected {HASHES[name]}, got [0-9a-f]{{64}}\n", err)


def test_a_result_that_is_not_finite_fails_and_says_which(monkeypatch, capsys):
    monkeypatch.setitem(init.RULES, "zeros", lambda draw, shape: np.full(shape, np.nan))
    assert cli.main(["verify"]) == 1
    _, err = capsys.readouterr()
    assert err.startswith("crnn verify: initial weights zeros: expected ")
    assert err.endswith("got FloatingPointError: float32: expected finite numbers, got NaN or infinity\n")


def test_running_out_of_memory_is_no_difference(monkeypatch):
    def fails(draw, shape):
        raise MemoryError

    monkeypatch.setitem(init.RULES, "zeros", fails)
    with pytest.raises(MemoryError):
        crnn.verify()


# ---- the command -----------------------------------------------------------------------------------------------


def test_the_command_prints_a_line_per_part_and_the_hash():
    command = [*crnn_command("verify"), "--isa", "generic", "--threads", "3"]
    done = run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert [re.split(" {2,}", line)[:1] + line.rsplit(None, 1)[1:] for line in lines] == [
        ["ok", each] for each in HASHES.values()
    ]
    assert last == HASH
    assert done.stderr == f"crnn {crnn.__version__}, generic, threads 3: bit-identical to every other machine\n"


@pytest.mark.parametrize("flags", [["--isa", "avx1024"], ["--threads", "0"]])
def test_the_command_refuses_wrong_flags(capsys, flags):
    assert cli.main(["verify", *flags]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("crnn verify: ")


ROUND_UP = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())


@pytest.mark.skipif(sys.platform != "linux" or ROUND_UP is None, reason="needs a rounding mode that is known here")
def test_modules_that_are_first_compiled_in_another_rounding_mode_have_the_right_constants(tmp_path):
    """Python computes 2.0**-23 when it compiles a module, with the C library's pow. There are no .pyc files here."""
    code = (
        "import ctypes, sys; sys.pycache_prefix = sys.argv[1]; import crnn\n"
        f"assert ctypes.CDLL('libm.so.6').fesetround({ROUND_UP}) == 0\n"
        "assert 1 + float('1e-300') > 1\n"
        "result = crnn.verify()\n"
        "assert result.ok, result.first_difference"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_import_crnn_does_not_import_the_verification():
    done = run_python("import sys, crnn; assert not [m for m in sys.modules if 'verification' in m]")
    assert done.returncode == 0, done.stderr


# ---- the pieces ------------------------------------------------------------------------------------------------


def hashed(*results):
    digest = Digest()
    for name, result in results:
        digest.add(name, result)
    return digest.hexdigest()


def test_the_hash_of_an_array_does_not_depend_on_byte_order_or_layout():
    array = samples.numbers(3, 4, seed=1)
    reference = hashed(("a", array))
    assert reference == hashed(("a", array.astype(">f8")))
    assert reference == hashed(("a", np.asfortranarray(array)))
    assert hashed(("a", np.arange(5, dtype=np.int32))) == hashed(("a", np.arange(5, dtype=">i8")))


@pytest.mark.parametrize(
    "other",
    [
        [("b", np.zeros(4))],
        [("a", np.zeros(4, np.float32))],
        [("a", np.zeros((2, 2)))],
        [("a", -np.zeros(4))],
        [("a", np.zeros(4, int))],
        [("a", [0.0] * 4)],
        [("a", np.zeros(2)), ("a", np.zeros(2))],
    ],
)
def test_different_results_have_different_hashes(other):
    assert hashed(*other) != hashed(("a", np.zeros(4)))


@pytest.mark.parametrize("value", [np.nan, np.inf, [1.0, -np.inf], np.array([1, np.nan], np.float32)])
def test_results_that_are_not_finite_have_no_hash(value):
    with pytest.raises(FloatingPointError, match=r"^y(\[1\])?: expected finite numbers"):
        hashed(("y", value))


def test_other_types_have_no_hash():
    with pytest.raises(TypeError, match="y: expected numbers or text, got bool"):
        hashed(("y", np.ones(2, bool)))


def test_samples_are_exact_in_float32_and_differ_by_seed():
    drawn = samples.numbers(1000, seed=1)
    assert (drawn == drawn.astype(np.float32)).all()
    assert -1 <= drawn.min() < -0.99
    assert 0.99 < drawn.max() < 1
    assert (drawn != samples.numbers(1000, seed=2)).any()


def test_the_table_is_written_as_it_stands():
    assert renew.TABLE.read_text("utf-8") == renew.table(HASHES)


def test_the_table_is_renewed_with_what_this_build_computes(monkeypatch, tmp_path, capsys):
    wanted = {name: part for name, part in all_parts().items() if name.startswith(("schedule", "optimizer"))}
    old = {**{name: HASHES[name] for name in wanted}, "optimizer adam": "0" * 64, "optimizer gone": "1" * 64}
    monkeypatch.setattr(renew, "all_parts", lambda: wanted)
    monkeypatch.setattr(renew, "HASHES", old)
    monkeypatch.setattr(renew, "TABLE", tmp_path / "hashes.py")
    monkeypatch.setattr(renew, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(f"it prints `{'0' * 64}`.\n", encoding="utf-8")
    assert renew.main() == 0
    scope: dict = {}
    exec((tmp_path / "hashes.py").read_text("utf-8"), scope)
    assert scope["HASHES"] == {name: HASHES[name] for name in wanted}
    new = chained(list(scope["HASHES"].items()))
    assert (tmp_path / "README.md").read_text("utf-8") == f"it prints `{new}`.\n"
    assert capsys.readouterr().out.splitlines() == ["optimizer adam", "optimizer gone", new]


def test_nothing_is_renewed_where_instruction_sets_differ(monkeypatch, tmp_path, capsys, isas):
    def part(digest, threads):
        digest.add("isa", dispatch.isa())

    monkeypatch.setattr(renew, "all_parts", lambda: {"cell lstm": part})
    monkeypatch.setattr(renew, "TABLE", tmp_path / "hashes.py")
    assert renew.main() == 1
    assert not (tmp_path / "hashes.py").exists()
    assert "differs from" in capsys.readouterr().err


def test_a_model_file_of_a_little_endian_machine_is_read_on_every_machine():
    """The bytes are written here one by one, so that the test also means something on a big-endian machine."""
    model = crnn.RNN(5, 7, cell="gru", seed=1)
    content = model.to_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for name, values in model.params.items():
        little_endian = values.astype("<f4").tobytes()
        assert little_endian in content[start:], name
    restored = from_bytes(content)
    assert restored.flat_params.tobytes() == model.flat_params.tobytes()
