# SPDX-License-Identifier: MIT
"""A pool of worker threads that run the parts of a call. Threads are started when they are first needed.

`run` is compiled, because in Python an exception of a signal handler may be raised between any two bytecodes, also in an
``except`` or ``finally``: no Python code can wait for its workers under all circumstances. Here handlers run only where
`run` calls them, and in the Python code of a part. What they raise is kept until the last part has ended, because
until then workers write into the caller's arrays.

A part is taken by whichever thread is free, and the caller takes those that no worker has begun. So a call does not
depend on its workers: it returns its results too if no thread can be started, if all of them are busy, while the
interpreter shuts down, and where a library replaces threads by something else.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals

import os
from _thread import start_new_thread

try:
    from _queue import SimpleQueue  # what `queue` has, without the modules that it imports
except ImportError:
    from queue import SimpleQueue

from crnn._core.dispatch import call_in_ieee_mode

cdef extern from "pythread.h" nogil:
    ctypedef void *PyThread_type_lock
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible)
    void PyThread_release_lock(PyThread_type_lock lock)

cdef extern from "simd/compat.h" nogil:
    int flag_take(int *flag)
    void flag_give(int *flag)

cdef enum:
    CHECK_MICROSECONDS = 50_000  # between calls of signal handlers, where a signal does not wake the waiting thread

cdef int forks = 0  # how often this process is the child of a fork


@cython.final
cdef class Job:
    """The parts 0 .. parts-1 of one call of `run`. Parts are begun in rising order."""
    cdef object function
    cdef object failure             # the first exception of a part
    cdef Py_ssize_t parts           # to be begun; reduced to `begun` by `close`
    cdef Py_ssize_t begun, ended
    cdef bint waiting               # the caller waits for the parts that have begun and not ended
    cdef PyThread_type_lock last    # acquired, until the last of those ends

    def __cinit__(self, function, Py_ssize_t parts):
        self.function, self.parts = function, parts
        self.last = PyThread_allocate_lock()
        if self.last == NULL:
            raise MemoryError()
        PyThread_acquire_lock_timed(self.last, 0, 0)

    def __dealloc__(self):
        if self.last != NULL:
            PyThread_free_lock(self.last)

    cdef Py_ssize_t begin(self) noexcept:
        """The next part, which the calling thread now has to run; -1: there is none."""
        cdef Py_ssize_t part = -1
        with cython.critical_section(self):
            if self.begun < self.parts:
                part = self.begun
                self.begun += 1
        return part

    cdef void end(self, error) noexcept:
        """A part has ended, with an exception or None. After an exception no other part is begun."""
        cdef bint wake
        with cython.critical_section(self):
            if error is not None:
                self.parts = self.begun
                if self.failure is None:
                    self.failure = error
            self.ended += 1
            wake = self.waiting and self.ended == self.begun
        if wake:
            PyThread_release_lock(self.last)

    cdef object work(self):
        """Run parts until there is none left to begin. Returns what one of them has raised in this thread, or None."""
        cdef Py_ssize_t part = self.begin()
        failure = None
        while part >= 0:
            try:
                self.function(part)
            except BaseException as error:
                failure = error
            self.end(failure)
            part = self.begin()
        return failure

    cdef object wait(self):
        """Wait until all parts that have begun have ended. Returns the last exception of a signal handler, or None."""
        cdef int here = forks
        cdef bint done
        cdef PyLockStatus status
        interruption = None
        with cython.critical_section(self):
            self.parts = self.begun
            done = self.ended == self.begun
            self.waiting = not done
        while not done:
            with nogil:
                status = PyThread_acquire_lock_timed(self.last, CHECK_MICROSECONDS, 1)
            done = status == PY_LOCK_ACQUIRED
            if not done:
                try:
                    PyErr_CheckSignals()
                except BaseException as error:
                    interruption = error
                if here != forks:  # a handler has forked, and this is the child
                    return RuntimeError("threads: this process was forked while its threads were at work")
        return interruption


@cython.final
cdef class Pool:
    """Threads that take jobs from one queue. Several threads may submit jobs at the same time."""
    cdef object jobs        # SimpleQueue of Job
    cdef Py_ssize_t size    # number of threads

    def __cinit__(self):
        self.jobs = SimpleQueue()

    cdef int submit(self, Job job, Py_ssize_t workers) except -1:
        """Let up to so many workers run parts of a job. It does not matter whether there are as many."""
        cdef Py_ssize_t i
        try:
            while self.add_thread(workers):
                pass
            for i in range(workers):
                self.jobs.put(job)
        except (MemoryError, RuntimeError):  # "can't start new thread"
            pass
        return 0

    cdef bint add_thread(self, Py_ssize_t size) except -1:
        """Start a thread if there are fewer than ``size``. Returns whether it has; raises RuntimeError, MemoryError."""
        cdef bint add
        with cython.critical_section(self):
            add = self.size < size
            self.size += add
        if add:
            try:
                start_new_thread(work, (self,))
            except BaseException:
                with cython.critical_section(self):
                    self.size -= 1
                raise
        return add


cdef Pool pool = Pool()


def work(Pool pool not None):
    """What a thread of the pool does: run jobs until the process ends."""
    try:
        call_in_ieee_mode(run_jobs, (pool.jobs,), {})  # a thread inherits the mode of the one that starts it
    except MemoryError:  # of the queue; the next call starts another thread
        with cython.critical_section(pool):
            pool.size -= 1


def run_jobs(jobs):
    """Run jobs from a queue until the process ends. Raises MemoryError."""
    cdef Job job
    while True:
        job = jobs.get()
        job.work()
        job = None  # an idle thread keeps no arrays alive


def _after_fork():
    """Use a new pool in a forked child process, which has none of its parent's threads."""
    global pool, forks
    pool = Pool()
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(Py_ssize_t threads, function) -> None:
    """Call ``function(part)`` once for each part 0 .. threads-1, part 0 in this thread, and wait for them.

    Raises the exception of a part, after all parts that have begun have ended; the others are then not run. An exception
    in this thread, such as that of a signal handler, takes precedence over those in others.
    """
    cdef Job job
    if threads <= 1:
        function(0)
        return
    job = Job(function, threads)
    job.begin()  # part 0
    failure = None
    try:
        pool.submit(job, threads - 1)
        function(0)
    except BaseException as error:
        failure = error
    job.end(failure)
    if failure is None:
        failure = job.work()
    interruption = job.wait()
    if interruption is not None:
        failure = interruption
    if failure is None:
        failure = job.failure
    job.function = job.failure = None  # an exception refers to the frames of the caller
    if failure is not None:
        raise failure


@cython.final
cdef class Exclusive:
    """Context manager of a call during which no other may begin: RuntimeError, which names ``what`` is in use.

    Compiled, because a signal handler could raise within methods in Python, and it would stay in use for ever.
    """
    cdef int busy
    cdef str what

    def __init__(self, str what not None):
        self.what = what

    def __enter__(self) -> None:
        if not flag_take(&self.busy):
            raise RuntimeError(f"{self.what}: another thread is using it; give other threads a snapshot")

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        flag_give(&self.busy)


@cython.final
cdef class Ranges:
    """What `run` calls for `run_ranges`: ``self(part)`` makes the call for the elements of that part."""
    cdef range_call call
    cdef const void *arguments
    cdef Py_ssize_t n, unit, parts

    def __call__(self, Py_ssize_t part):
        cdef Py_ssize_t units = (self.n + self.unit - 1) // self.unit
        cdef Py_ssize_t start = units * part // self.parts * self.unit
        cdef Py_ssize_t stop = units * (part + 1) // self.parts * self.unit
        with nogil:
            self.call(self.arguments, start, min(stop, self.n))


cdef int run_ranges(range_call call, const void *arguments, Py_ssize_t n, Py_ssize_t unit, Py_ssize_t least,
                    Py_ssize_t threads) except -1:
    cdef Py_ssize_t parts = min(threads, n // least)
    cdef Ranges ranges
    if parts <= 1:
        with nogil:
            call(arguments, 0, n)
        return 0
    ranges = Ranges()
    ranges.call, ranges.arguments, ranges.n, ranges.unit, ranges.parts = call, arguments, n, unit, parts
    run(parts, ranges)
    return 0
