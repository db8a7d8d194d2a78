# SPDX-License-Identifier: MIT
"""Training on several ranks: the bits of one process, whichever ranks there are, and one end for all of them."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from rank_tools import (
    CORPUS,
    KINDS,
    BufferComm,
    ThreadComm,
    fitted,
    on_ranks,
    start_processes,
    statuses,
    weights_hash,
)

import crnn
from crnn.text.windows import contiguous_batches
from crnn.training import ranks as ranked_runs

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
comms = pytest.mark.parametrize("kind", [ThreadComm, BufferComm])


def small(comm=None, **options):
    """A small training, with 8 rows and 8 shards."""
    training = {"epochs": 2, "bptt": 12, "batch_size": 8, "lr": 0.02, "shards": 8, "log_every": 1, "comm": comm}
    seed = options.pop("seed", 3)
    model = options.pop("model", None) or crnn.LanguageModel(CORPUS.vocab, "gru", 6, dropout=0.1, seed=seed)
    return model.fit(options.pop("data", CORPUS), **{**training, **options})


def check_error(error, kind, text):
    assert type(error) is kind, error
    assert text in str(error)


# ---- one hash --------------------------------------------------------------------------------------------------------


@comms
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_any_number_of_ranks_gives_the_bits_of_one_process(size, kind):
    one = small()
    for model in on_ranks(size, small, kind):
        assert_same_bits(model.flat_params, one.flat_params)
        assert model.log.column("train_loss", "epoch") == pytest.approx(one.log.column("train_loss", "epoch"))
        assert model.log.column("valid_loss") == one.log.column("valid_loss")


@pytest.mark.parametrize("model", KINDS)
def test_every_kind_of_model_is_trained_on_ranks(model):
    one = weights_hash(fitted(model, shards=4))
    for kind, size in (ThreadComm, 2), (BufferComm, 3):
        assert [weights_hash(each) for each in on_ranks(size, lambda comm: fitted(model, shards=4, comm=comm), kind)] \
            == [one] * size


def test_ranks_may_have_different_numbers_of_threads():
    models = on_ranks(2, lambda comm: small(comm, threads=1 + comm.rank))
    assert [weights_hash(model) for model in models] == [weights_hash(small())] * 2


def test_crnn_fit_takes_ranks_and_eight_shards_are_the_default():
    def train(comm):
        model = crnn.LanguageModel(CORPUS.vocab, hidden_size=5, seed=2)
        crnn.fit(model, CORPUS, comm=comm, epochs=1, batch_size=9)
        return model

    one = crnn.LanguageModel(CORPUS.vocab, hidden_size=5, seed=2)
    crnn.fit(one, CORPUS, shards=8, epochs=1, batch_size=9)
    for model in on_ranks(2, train):
        assert_same_bits(model.flat_params, one.flat_params)


def test_bf16_and_float64_are_trained_on_ranks():
    for options in {"precision": "bf16"}, {"dtype": "float64"}:
        one = weights_hash(fitted("language", shards=4, **options))
        models = on_ranks(2, lambda comm, of=options: fitted("language", shards=4, comm=comm, **of), BufferComm)
        assert [weights_hash(model) for model in models] == [one] * 2


def test_a_rank_reads_its_streams_only():
    ids = np.arange(1, 400)
    before = [[x.copy() for x in xs] for xs, _ in contiguous_batches(ids, 8, 5).sharded(4, 1, 3).epoch(1)]
    windows = contiguous_batches(ids, 8, 5)
    length = (len(ids) - 1) // 8
    ids[: 2 * length] = ids[6 * length + 1 :] = -7
    for xs, expected in zip((xs for xs, _ in windows.sharded(4, 1, 3).epoch(1)), before, strict=True):
        for x, wanted in zip(xs, expected, strict=True):
            assert_same_bits(np.ascontiguousarray(x), wanted)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(1, 4), (4, 1), (3, 2), (None, 3), (2, None)])
def test_a_run_is_resumed_on_another_number_of_ranks(first, second, tmp_path):
    """Stopped within an epoch, so that the state of all rows is in the checkpoint. None: without a communicator."""
    file = tmp_path / "c"

    def on(size, **options):
        if size is None:
            return [small(checkpoint=file, **options)]
        return on_ranks(size, lambda comm: small(comm, checkpoint=file, **options))

    on(first, on_update=lambda progress: progress.update == 5)
    for model in on(second, resume=True):
        assert_same_bits(model.flat_params, small().flat_params)


def test_checkpoints_within_an_epoch_have_the_state_of_all_rows(tmp_path):
    """They are written when rank 0 says so, and those of one process have the same bytes."""
    contents = []
    for size in None, 3:
        file = tmp_path / f"c{size}"

        def stop(progress, file=file):
            if progress.update == 7:
                contents.append(crnn.io.model_file.read(file)[0])

        options = {"checkpoint": file, "checkpoint_updates": 3, "on_update": stop}
        if size:
            on_ranks(size, lambda comm, of=options: small(comm, **of), BufferComm)
        else:
            small(**options)
    assert contents[0].keys() == contents[1].keys()
    for name, array in contents[0].items():
        if name != "log":  # it has times
            assert_same_bits(contents[1][name], array)


def test_only_rank_0_writes_files_and_calls_callbacks(tmp_path):
    calls = []

    def train(comm):
        folder = tmp_path / str(comm.rank)
        folder.mkdir()
        files = {"checkpoint": folder / "c", "log_file": folder / "l.csv", "report": folder / "r.html"}
        called = {"on_update": lambda _: calls.append(comm.rank), "on_epoch": lambda _: calls.append(comm.rank)}
        return small(comm, **files, **called)

    on_ranks(3, train)
    assert {each.name for each in (tmp_path / "0").iterdir()} >= {"c", "l.csv", "r.html"}
    assert not [*(tmp_path / "1").iterdir(), *(tmp_path / "2").iterdir()]
    assert set(calls) == {0}


def test_callbacks_and_checkpoints_that_only_rank_0_gives_are_those_of_all(tmp_path):
    def train(comm):
        given = {"checkpoint": tmp_path / "c", "on_update": lambda progress: progress.update == 4}
        return small(comm, **(given if comm.rank == 0 else {}))

    models = on_ranks(2, train)
    assert [model.log.updates for model in models] == [4, 4]
    resumed = small(checkpoint=tmp_path / "c", resume=True)
    assert_same_bits(resumed.flat_params, small().flat_params)


def test_a_signal_on_one_rank_stops_all_after_the_same_update(tmp_path, monkeypatch):
    """Signals come to the main thread, so here a rank says that it has got one."""

    def train(comm):
        def told():
            return signal.SIGTERM if comm.calls > 20 and comm.rank == 1 else None

        class Told(ranked_runs.SharedInterrupts):
            signum = property(lambda self: told())

        local.told = Told
        return small(comm, checkpoint=tmp_path / "c")

    local = threading.local()
    monkeypatch.setattr("crnn.training.trainer.SharedInterrupts", lambda run: local.told(run))
    errors = on_ranks(3, train)
    assert [type(error).__name__ for error in errors] == ["Interrupted"] * 3
    assert len({str(error).split(";")[0] for error in errors}) == 1
    assert_same_bits(small(checkpoint=tmp_path / "c", resume=True).flat_params, small().flat_params)


# ---- refusals --------------------------------------------------------------------------------------------------------

DIFFERENT = {
    "bptt": {"bptt": 11},
    "seed": {"seed_of_masks": 4},
    "reduction": {"reduction": "sum"},
    "max_updates": {"max_updates": 9},
    "schedule": {"schedule": None},
    "optimizer": {"lr": 0.03},
    "weights": {"model": 4},
    "data": {"data": 1},
    "patience": {"patience": 3},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_ranks_that_would_do_something_else_are_refused_and_the_difference_is_named(name):
    def train(comm):
        options = dict(DIFFERENT[name]) if comm.rank == 1 else {}
        if name == "seed":  # of the masks; `small` takes that of the weights
            model = crnn.LanguageModel(CORPUS.vocab, "gru", 6, dropout=0.1, seed=3)
            return crnn.fit(model, CORPUS, comm=comm, seed=4 * len(options))
        if "model" in options:
            options["model"] = crnn.LanguageModel(CORPUS.vocab, "gru", 6, dropout=0.1, seed=4)
        if "data" in options:
            options["data"] = CORPUS.train[::-1].copy()
            options["valid"] = CORPUS.valid
        return small(comm, **options)

    for error in on_ranks(3, train):
        check_error(error, ValueError, f"{name}: expected the same on all ranks, got")
        assert "on rank 0 and" in str(error)
        assert str(error).endswith("on rank 1")


def test_more_ranks_than_shards_and_wrong_communicators_are_refused():
    for error in on_ranks(3, lambda comm: small(comm, shards=2)):
        check_error(error, ValueError, "shards: expected at least 3, the number of ranks, got 2")
    with pytest.raises(TypeError, match=r"comm: expected an object with rank, size and allgather, .* got int"):
        small(3)

    class Half:
        rank, size, allgather = 2, 2, list

    with pytest.raises(ValueError, match="comm: expected a rank from 0 to size - 1, got 2 of 2"):
        small(Half())


def test_a_rank_with_wrong_data_ends_all_before_anything_is_written(tmp_path):
    def train(comm):
        return small(comm, checkpoint=tmp_path / "c", data=[1.5] if comm.rank == 1 else CORPUS)

    errors = on_ranks(2, train)
    check_error(errors[0], crnn.RankError, "rank 1 of 2 has failed: ")
    assert not isinstance(errors[1], crnn.RankError)
    assert not (tmp_path / "c").exists()


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_an_exception_of_a_callback_ends_all_with_a_checkpoint_of_that_update(tmp_path):
    def fail(progress):
        if progress.update == 5:
            raise ZeroDivisionError("the user's")

    errors = on_ranks(3, lambda comm: small(comm, checkpoint=tmp_path / "c", on_update=fail))
    check_error(errors[0], ZeroDivisionError, "the user's")
    for error in errors[1:]:
        check_error(error, crnn.RankError, "rank 0 of 3 has failed: ZeroDivisionError: the user's")
    assert_same_bits(small(checkpoint=tmp_path / "c", resume=True).flat_params, small().flat_params)


class Failing(crnn.LanguageModel, kind="TestRanksFailing"):
    """Fails in its 8th call."""

    calls, error = 0, None

    def loss_and_gradients(self, *arguments, **options):
        self.calls += 1
        if self.calls == 8 and self.error is not None:
            raise self.error
        return super().loss_and_gradients(*arguments, **options)


def test_a_rank_that_fails_within_an_update_ends_all_and_the_last_checkpoint_stays(tmp_path):
    def train(comm):
        model = Failing(CORPUS.vocab, "gru", 6, dropout=0.1, seed=3)
        model.error = MemoryError("no more") if comm.rank == 2 else None
        return small(comm, model=model, checkpoint=tmp_path / "c", checkpoint_updates=1)

    errors = on_ranks(4, train)
    check_error(errors[2], MemoryError, "no more")
    for rank in 0, 1, 3:
        check_error(errors[rank], crnn.RankError, "rank 2 of 4 has failed: MemoryError: no more")
    assert crnn.io.model_file.read(tmp_path / "c")[1]["progress"]["update"] == 3
    model = Failing(CORPUS.vocab, "gru", 6, dropout=0.1, seed=3)
    resumed = small(model=model, checkpoint=tmp_path / "c", resume=True)
    assert_same_bits(resumed.flat_params, small().flat_params)


def test_weights_that_are_changed_on_one_rank_are_found(monkeypatch):
    monkeypatch.setattr(ranked_runs, "DIGEST_EVERY", 2)

    def train(comm):
        model = Failing(CORPUS.vocab, "gru", 6, dropout=0.1, seed=3)
        if comm.rank == 1:
            original = model.loss_and_gradients

            def changing(*arguments, **options):
                model.flat_params[0] += 1e-6
                return original(*arguments, **options)

            model.loss_and_gradients = changing
        return small(comm, model=model)

    for error in on_ranks(2, train):
        check_error(error, crnn.RankError, "weights: expected the same on all ranks, got others on rank 1")


def test_weights_that_differ_are_found_after_an_epoch_too(tmp_path):
    """Of schedules that are functions, only the names are compared at the start."""

    def train(comm):
        return small(comm, schedule=lambda k, n: 1.0 + comm.rank, checkpoint=tmp_path / "c")

    for error in on_ranks(2, train):
        check_error(error, crnn.RankError, "weights: expected the same on all ranks, got others on rank 1")
    assert not (tmp_path / "c").exists()


def test_an_option_of_the_model_that_differs_is_named():
    def train(comm):
        return small(comm, model=crnn.LanguageModel(CORPUS.vocab, "gru", 6, label_smoothing=0.1 * comm.rank, seed=3))

    for error in on_ranks(2, train):
        check_error(error, ValueError, "model: label_smoothing: expected the same on all ranks, got None")


@pytest.mark.parametrize(
    ("answer", "kind", "found"),
    [
        (lambda data: None, TypeError, "got NoneType"),
        (lambda data: data, TypeError, "got bytes"),
        (lambda data: [None], TypeError, "got one of NoneType"),
        (lambda data: [data, data], crnn.RankError, "got 2 messages"),
    ],
)
def test_an_allgather_that_does_not_return_the_bytes_of_all_is_named(answer, kind, found):
    class Wrong:
        rank, size = 0, 1

        def allgather(self, data):
            return answer(data)

    with pytest.raises(kind, match=f"^comm: expected an allgather that returns the bytes of all 1 ranks, {found}$"):
        small(Wrong())


def test_diverging_ends_all_ranks_alike(tmp_path):
    errors = on_ranks(2, lambda comm: small(comm, lr=1e39, optimizer="sgd", checkpoint=tmp_path / "c"))
    assert [type(error).__name__ for error in errors] == ["Diverged"] * 2
    assert str(errors[0]) == str(errors[1])


def test_a_failing_engine_is_a_rank_error(tmp_path):
    class Broken(ThreadComm):
        def allgather(self, data):
            if self.calls == 12:
                raise OSError("link down")
            return super().allgather(data)

    for error in on_ranks(2, lambda comm: small(comm, checkpoint=tmp_path / "c"), Broken):
        check_error(error, crnn.RankError, "cannot exchange data with the others, of which one may have died: OSError")


def test_other_messages_than_those_of_crnn_are_a_rank_error():
    class Foreign(ThreadComm):
        def allgather(self, data):
            return super().allgather(b"hello" if self.rank else data)

    for error in on_ranks(2, small, Foreign):
        check_error(error, crnn.RankError, "comm: expected a message of crnn from rank")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda found: found[::-1], "comm: expected messages in the order of their ranks, got that of rank 1"),
        (lambda found: found[:1] * 2, "comm: expected messages in the order of their ranks, got that of rank 0"),
        (lambda found: [data + bytes(3) for data in found], "comm: expected the message of rank 0 as it was given, "),
        (lambda found: [each[:100] for each in found], "comm: expected the message of rank 0 as it was given, "),
    ],
    ids=["another order", "one twice", "padded", "cut"],
)
def test_messages_that_an_adapter_mixes_up_are_a_rank_error(changed, message):
    class Careless(ThreadComm):
        def allgather(self, data):
            return changed(super().allgather(data))

    for error in on_ranks(2, small, Careless):
        check_error(error, crnn.RankError, message)


def test_messages_may_be_arrays_of_bytes_of_either_sign():
    class Arrays(ThreadComm):
        def allgather(self, data):
            return [np.frombuffer(each, [np.int8, np.uint8][self.rank]) for each in super().allgather(data)]

    assert [weights_hash(each) for each in on_ranks(2, small, Arrays)] == [weights_hash(small(shards=8))] * 2


@forks
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_process_that_is_killed_ends_the_others_and_the_run_resumes_elsewhere(name, tmp_path):
    file = tmp_path / "c"

    def train(comm):
        def wait(progress):
            if progress.update == 6:
                (tmp_path / "now").touch()
            time.sleep(0.01)

        options = {"checkpoint": file, "checkpoint_updates": 2, "on_update": wait, "epochs": 20}
        try:
            small(comm, **options)
        except crnn.RankError as error:
            (tmp_path / f"error{comm.rank}").write_text(str(error))
            return 3
        except KeyboardInterrupt as error:
            return error.status
        return 0

    children = start_processes(3, train)
    deadline = time.monotonic() + 60
    while not (tmp_path / "now").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(children[1], getattr(signal, name))
    assert statuses(children) == ([3, -9, 3] if name == "SIGKILL" else [130] * 3)
    if name == "SIGKILL":
        assert "one may have died" in (tmp_path / "error0").read_text()
    models = on_ranks(2, lambda comm: small(comm, checkpoint=file, epochs=20, resume=True))
    whole = small(epochs=20)
    assert 6 <= crnn.io.model_file.read(file)[1]["progress"]["update"] <= whole.log.updates
    assert_same_bits(models[0].flat_params, whole.flat_params)
