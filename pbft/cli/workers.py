"""A task on every core: the standard pool, fed little by little, and deaf to Ctrl-C."""

import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, resource_tracker
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_all(work: Callable[[Task], Result], tasks: Iterable[Task]) -> Generator[Result, None, None]:
    """The results of `work` with every task, as they come. All of it must be picklable.

    Raises BrokenProcessPool where a worker process has died. An exception that is raised in here,
    Ctrl-C for instance, ends the workers once they have done what they are at.
    """
    waiting = iter(tasks)
    ahead = 4 * (os.cpu_count() or 1)
    pool = ProcessPoolExecutor(mp_context=get_context("spawn"))
    try:
        with _interrupts_held_back():  # from the workers for good: their parent ends them
            running = {pool.submit(work, task) for task in islice(waiting, ahead)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(work, task) for task in islice(waiting, len(done))}
            yield from map(Future.result, done)
    finally:
        pool.shutdown(cancel_futures=True)


def watched(results: Iterable[Result], what: str, total: int) -> Iterable[Result]:
    """`results`, with a bar on standard error if that is a terminal."""
    console = Console(stderr=True)
    return track(results, what, total=total, console=console, disable=not console.is_terminal)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C waits until this ends; a process that is started meanwhile never gets it."""
    resource_tracker.ensure_running()  # else its start, within that of a process, undoes the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
