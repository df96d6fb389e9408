"""Time to the first paint of `wm board`, its requests, and how much it slows a run on the same machine.

    PYTHONPATH=tests python bench/board.py [RUNS OBJECTS MINUTES]

Copies a small run until a folder and a bucket of SeaweedFS have RUNS runs (50) and OBJECTS objects (100,000) each. One
run is at work: its table grows as often as a worker publishes it. Chromium opens the page of each. It reports when the
page paints, when all states are known and when curves are drawn; then, for MINUTES (2), the requests that the board
sends and their price. At last, it times the first two stages of a run, alternately alone and with the board and the
page beside it.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import buckets
import small_run
from playwright.sync_api import sync_playwright

from worldmodels import stored
from worldmodels.board import server
from worldmodels.board.metered import price
from worldmodels.board.watching import Watch
from worldmodels.config import resolve
from worldmodels.store import LocalStore, Store, open_store

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
THREADS = 16
SHARD = b"x" * 2000
REPETITIONS = 3
STAGES = ("rollouts", "vae", "--preset", "demo", "-o", "rollouts.episodes=64", "-o", "vae.epochs=1")


def copies(run: Path, runs: int) -> Iterator[tuple[str, bytes]]:
    """Yield key and content of each object of the runs `run-000` …; keys in JSON name the copy's own objects."""
    files = [path for path in run.rglob("*") if path.is_file() and path.parent.name != "alive"]
    for number in range(runs):
        name = f"run-{number:03d}"
        for path in files:
            data = path.read_bytes()
            if path.suffix == ".json" and f'"{run.name}/'.encode() in data:
                value = json.loads(data.replace(f'"{run.name}/'.encode(), f'"{name}/'.encode()))
                value.pop("checksum", None)
                data = stored.encode(value)
            yield f"{name}/{path.relative_to(run)}", data


def shards(runs: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` more objects, as an evolution and a large set of rollouts leave them."""
    for number in range(count):
        run, place = number % runs, number // runs
        yield f"run-{run:03d}/iter-1/rollouts/data/20260101T000000-89abcdef/shard-{place:05d}/episodes.zst", SHARD


def fill(store: Store, objects: Iterable[tuple[str, bytes]]) -> int:
    def put(each: tuple[str, bytes]) -> None:
        if isinstance(store, LocalStore):  # without fsync: nothing here must survive
            path = store.root / each[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(each[1])
        else:
            store.put(*each)

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(1 for _ in pool.map(put, objects))


def work(store: Store, stop: threading.Event) -> None:
    """Play the worker of a training in `run-000`."""
    prefix, step = "run-000/iter-1/vae", 0
    for entry in list(store.entries(f"{prefix}/manifest")):
        store.delete(entry.key)
    text = "step,squared_error,kl\n"
    while not stop.is_set():
        step += 20
        text += f"{step},{400 / step + 20:.3f},{12 - 100 / (step + 10):.3f}\n"
        if step % 80 == 20:
            store.put(f"{prefix}/alive/{small_run.ATTEMPT}", b'{"host": "node-7", "worker": 0}')
        store.follow(f"{prefix}/live/training.csv", text.encode())
        stop.wait(store.publish_seconds)


def measure(place: str, store: Store, minutes: float) -> None:
    stop, began = threading.Event(), time.monotonic()
    worker = threading.Thread(target=work, args=(store, stop), daemon=True)
    worker.start()
    watch = Watch(store, resolve()[0])
    watch.find()
    found = time.monotonic() - began
    with server.listen(0) as listening, sync_playwright() as playwright:
        served, address = server.serve(watch, listening)
        watch.start()
        threading.Thread(target=served.serve_forever, daemon=True).start()
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        began = time.monotonic()
        page.goto(f"{address}#run=run-000/1")
        page.wait_for_selector("body[data-read]:not([data-read=''])", state="attached")
        known = time.monotonic() - began
        page.locator("figure:visible svg").first.wait_for()
        drawn = time.monotonic() - began
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
        first = watch.metered.reads, watch.metered.lists
        print(
            f"  {place:7} runs found in {found:.2f} s; then first paint {paint:.2f} s, all states {known:.2f} s,"
            f" curves {drawn:.2f} s; until then {first[0]} reads, {first[1]} listings, ${price(*first):.5f}",
            flush=True,
        )
        time.sleep(60 * minutes)
        now = watch.metered.reads, watch.metered.lists
        reads, lists = ((now[i] - first[i]) / minutes for i in (0, 1))
        dollars = price(reads, lists) * 60
        print(f"  {place:7} then {reads:.0f} reads and {lists:.1f} listings a minute, ${dollars:.5f} an hour")
        watch.end()
        stop.set()
        worker.join()
        served.shutdown()


@contextmanager
def opened(store: Path) -> Iterator[None]:
    """The command `wm board` in a process of its own, its page open in Chromium."""
    command = [sys.executable, "-m", "wm", "board", "--store", str(store)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as board,
        sync_playwright() as playwright,
    ):
        assert board.stdout
        address = next(word for line in board.stdout for word in line.split() if word.startswith("http://"))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        browser.new_page().goto(address)
        yield
        browser.close()
        board.terminate()


def slowdown(store: Path) -> None:
    """Report the seconds of a run's first stages, alone and with a watched board beside it."""
    store.mkdir()
    seconds: dict[str, list[float]] = {"alone": [], "beside the board": []}
    for number in range(REPETITIONS):
        for name, found in seconds.items():
            run = f"run-{number}-{len(seconds[name])}-{name.replace(' ', '-')}"
            with ExitStack() as stack:
                if name != "alone":
                    stack.enter_context(opened(store))
                began = time.monotonic()
                command = [sys.executable, "-m", "wm", "run", *STAGES, "--run", run, "--store", str(store)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                found.append(round(time.monotonic() - began, 1))
    alone, beside = (median(found) for found in seconds.values())
    print(
        f"  two stages take {alone:.1f} s alone, {beside:.1f} s beside the board: {beside / alone - 1:+.1%}"
        f" (medians of {REPETITIONS}; {seconds})"
    )


def main(runs: int = 50, objects: int = 100_000, minutes: float = 2.0) -> None:
    with tempfile.TemporaryDirectory(prefix="wm-bench-") as name:
        folder = Path(name)
        run = small_run.build(folder / "made", folder / "scratch").root / small_run.RUN
        (folder / "weed").mkdir()
        with buckets.serve(folder / "weed", volumes=100) as url:
            os.environ.update(buckets.environment(url))
            stores = {"folder": open_store(str(folder / "store")), "bucket": open_store(f"s3://{buckets.BUCKET}/board")}
            for place, store in stores.items():
                began = time.monotonic()
                count = fill(store, copies(run, runs))
                count += fill(store, shards(runs, objects - count))
                print(
                    f"  {place:7} {runs} runs, {count:,} objects, made in {time.monotonic() - began:.0f} s", flush=True
                )
                measure(place, store, minutes)
        slowdown(folder / "watched")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
