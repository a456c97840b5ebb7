"""Every loss, reorder and tear of the real disk, on all cores: `python -m tests.power_loss`."""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed

from tests.power_loss.campaign import Chosen, Life, apart, losses_seen, workplace
from tests.power_loss.losses import FULL, SAMPLE
from tests.power_loss.recording import Unrecordable
from tests.power_loss.replay import Report

SHARDS = 64


def main() -> None:
    """Exit code 1 if anything acknowledged was lost, or if the controls lose nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.power_loss", description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument(
        "--twice",
        type=int,
        default=9,
        help="start on one image of every so many moments, and let the power fail again (0: never)",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        default=25,
        help="run `pbft node` on one image of every so many moments (0: never)",
    )
    options = parser.parse_args()
    with workplace() as work:
        try:
            life = Life(work)
        except Unrecordable as reason:
            sys.exit(f"nothing can be recorded: {reason}")
        recorded, actual = life.replayed()
        if recorded != actual:
            sys.exit("the recorder has missed a call: the replayed folder is not the real one")
        reports = [
            show("one power cut", replay(life, options.jobs)),
            show("two power cuts", twice(life, options.twice)),
        ]
        nodes(life, options.nodes)
        controls = [
            show("control: syncs ignored", without_syncs(life)),
            show("control: durable=False", apart(life.try_careless, SAMPLE)),
        ]
    if any(report.failures for report in reports) or not all(map(losses_seen, controls)):
        sys.exit(1)


def replay(life: Life, jobs: int) -> Report:
    """The full plan at every moment."""
    total = Report()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for done, shard in enumerate(as_completed(shards(life, pool)), 1):
            total.add(shard.result())
            print(f"{done} of {SHARDS} parts, {total.images} images", file=sys.stderr)
    return total


def shards(life: Life, pool: ProcessPoolExecutor) -> "Iterator[Future[Report]]":
    """The moments in so many parts, each in a folder of its own."""
    for number in range(SHARDS):
        chosen = Chosen(every=SHARDS, offset=number)
        yield pool.submit(life.try_losses, FULL, chosen, f"shard-{number}")


def twice(life: Life, every: int) -> Report:
    """Starts on images of the first start, and of every so many-th moment."""
    total = Report()
    for moment, image in life.images(FULL, Chosen(first=16, every=every)) if every else ():
        total.add(life.fail_twice(SAMPLE, moment, image))
    return total


def without_syncs(life: Life) -> Report:
    """The control, in parts: LMDB may end the process that reads such a file."""
    total = Report()
    for number in range(8):
        chosen = Chosen(every=64, offset=7 * number)
        total.add(apart(life.try_without_syncs, SAMPLE, chosen))
    return total


def nodes(life: Life, every: int) -> None:
    """Run the real node; it fails here where it fails."""
    count = 0
    for moment, image in life.images(FULL, Chosen(every=every)) if every else ():
        life.start_node(moment, image)
        count += 1
    print(f"pbft node: {count} images, it started and was where its disk says each time")


def show(title: str, report: Report) -> Report:
    """Print what came of it."""
    print(f"{title}: {report.moments} moments, {report.images} images", flush=True)
    for what, count in report.found.most_common():
        print(f"  {count:7}  {what}")
    for what, count in report.failures.most_common():
        print(f"  {count:7}  LOST: {what} ({report.examples.get(what, '')})")
    return report


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"{time.monotonic() - began:.0f} s")
