import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import small_run
from wm.main import cli

from worldmodels.board import server, writing
from worldmodels.board.details import POINTS, columns
from worldmodels.board.reading import GONE_SECONDS
from worldmodels.board.watching import ACTIVE_AT_ONCE, QUIET_AT_ONCE, Watch
from worldmodels.config import resolve
from worldmodels.errors import ConfigError, StoreError
from worldmodels.planning import store_config
from worldmodels.store import LocalStore

ID, TOKEN = f"{small_run.RUN}/1", "a-token"
HOSTILE = "</script><script>alert(1)</script><img src=//x onerror=alert(1)>\u202e"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    return small_run.build(folder / "store", folder / "scratch").root


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made, tmp_path / "store")
    return LocalStore(tmp_path / "store")


def looked(store, *chosen, prices=(), looks=2):
    """A board that has read the store, with the details of some iterations."""
    watch = Watch(store, resolve(None, (), prices)[0])
    watch.find()
    for _ in range(looks):
        watch.state(chosen)
        watch.look()
    return watch


def row(watch, id=ID):
    return next(row for row in watch.state()["runs"] if row["id"] == id)


def stage(watch, name):
    return next(stage for stage in row(watch)["stages"] if stage["stage"] == name)


def begin(store, name):
    """Take a stage's result away, as if it were under way."""
    for path in (store.root / small_run.RUN / "iter-1" / name).glob("manifest*.json"):
        path.unlink()


def beat(store, name, attempt="20260101T000000-0123abcd", **more):
    said = {"host": "node-7", "machine": "m", "process": 7, "began": "1", "worker": 0, **more}
    store.put(f"{small_run.RUN}/iter-1/{name}/alive/{attempt}", json.dumps(said).encode())


def client(watch):
    return server.create(watch, TOKEN).test_client()


def get(watch, path="", **headers):
    return client(watch).get(f"/{TOKEN}/{path}", headers={"Host": "127.0.0.1:1", **headers})


# The states.


def test_the_board_shows_states_score_and_curves_of_a_run(store):
    watch = looked(store, ID)
    found, more = row(watch), watch.state([ID])["details"][ID]
    assert [stage["state"] for stage in found["stages"]] == ["committed"] * 6 + ["at work"]
    assert (found["words"], found["score"]["tracks"]) == ("report at work", 4)
    assert more["curves"]["controller"]["generation"] == [1, 2, 3, 4, 5]
    assert len(more["curves"]["controller"]["mean"]) == 5 and more["curves"]["vae"]["step"] == [1]
    assert more["stages"][1]["host"] == "laptop" and more["stages"][1]["seconds"] == 60
    assert more["stages"][6]["workers"][0]["host"] == "h"


def test_a_stage_says_why_it_does_nothing(store):
    begin(store, "memory")
    begin(store, "controller")
    assert stage(looked(store), "memory")["why"].endswith("no worker has begun it. Next: wm run memory --run small")
    assert stage(looked(store), "controller") == {
        "stage": "controller", "state": "waits", "since": None, "why": "for memory"
    }  # fmt: skip
    line = b"2026-01-01 10:00:00 E the disk is full; next: df -h\n"
    store.put("small/iter-1/memory/logs/20260101T000000-worker-00000.log", line)
    assert stage(looked(store), "memory")["state"] == "stopped"
    assert "the log ends with: the disk is full; next: df -h" in stage(looked(store), "memory")["why"]


def test_a_worker_counts_as_long_as_its_heart_beats(store):
    begin(store, "rollouts")
    beat(store, "rollouts")
    watch = looked(store, ID)
    assert stage(watch, "rollouts")["state"] == "at work"
    assert stage(watch, "rollouts")["since"] == 1767225600  # the attempt's name has its time
    assert stage(watch, "rollouts")["why"] == "2 of 2 shards"
    path = store.root / "small/iter-1/rollouts/alive/20260101T000000-0123abcd"
    os.utime(path, (time.time() - GONE_SECONDS - 1,) * 2)
    watch.look()
    assert stage(watch, "rollouts")["state"] == "stopped"


def test_curves_grow_while_a_stage_is_at_work(store):
    begin(store, "vae")
    beat(store, "vae")
    live = store.root / "small/iter-1/vae/live/training.csv"
    live.parent.mkdir(exist_ok=True)
    live.write_text("step,kl\n1,5\n2,4\n3,3.")  # the last row is not whole yet
    watch = looked(store, ID)
    assert watch.state([ID])["details"][ID]["curves"]["vae"] == {"step": [1, 2], "kl": [5, 4]}
    live.write_text("step,kl\n1,5\n2,4\n3,3.5\n")
    os.utime(live, (1, 1))
    watch.look()
    assert watch.state([ID])["details"][ID]["curves"]["vae"]["kl"] == [5, 4, 3.5]


def test_costs_need_prices(store):
    assert looked(store, ID).state([ID])["details"][ID]["cost"] is None
    priced = looked(store, ID, prices=("kubernetes.prices.cpu_hour=0.6", "kubernetes.gpus=false"))
    costs = [found["cost"] for found in priced.state([ID])["details"][ID]["stages"]]
    assert costs[0] == pytest.approx(0.01)  # a minute of a pod with one core
    assert costs[1] == pytest.approx(0.02)  # and with two


def test_a_damaged_manifest_is_a_state_not_an_error(store):
    (path,) = (store.root / "small/iter-1/evaluate").glob("manifest*.json")
    path.write_text("{}")
    watch = looked(store, ID)
    assert stage(watch, "evaluate")["state"] == "damaged" and watch.error == ""
    assert row(watch)["words"] == "evaluate damaged"


def test_runs_and_iterations_that_begin_later_appear(store):
    watch = looked(store)
    store_config(store, small_run.RUN, 2, *small_run.config())
    store_config(store, "other", 1, *small_run.config())
    watch.look()
    watch.look()
    assert {found["id"] for found in watch.state()["runs"]} == {ID, "small/2", "other/1"}


def test_a_store_that_fails_is_said_on_the_page_and_read_again(store):
    watch = looked(store)
    real, watch.metered._store = watch.metered._store, Failing()
    watch.look()
    assert watch.state()["error"] == "it is down; next: wm doctor"
    watch.metered._store = real
    watch.look()
    assert watch.state()["error"] == "" and row(watch)["read"]


class Failing:
    def folders(self, prefix):
        raise StoreError("it is down", next="wm doctor")

    def modified(self, key):
        raise StoreError("it is down", next="wm doctor")


# Requests.


class Bucketlike(LocalStore):
    """A folder that is read as a bucket is: seldom."""

    publish_seconds = 15.0
    local = False


def test_looks_at_a_bucket_cost_few_requests(store):
    for number in range(30):
        shutil.copytree(store.root / "small", store.root / f"run-{number}")
    moment = [0.0]
    watch = Watch(Bucketlike(store.root), resolve()[0], clock=lambda: moment[0])
    watch.look()
    first = watch.metered.reads, watch.metered.lists
    assert first[0] <= 31 * 14 and first[1] <= 31 * 4  # a listing for the iterations, three for the one open stage
    for _ in range(20):
        moment[0] += 15
        watch.state([ID])
        watch.look()
        reads, lists = watch.metered.minute()
        assert reads <= 60 / 15 * (ACTIVE_AT_ONCE + QUIET_AT_ONCE) * 10
        assert lists <= 60 / 15 * (ACTIVE_AT_ONCE + QUIET_AT_ONCE) * 3 + 2


def test_what_has_not_changed_is_not_read_again(store):
    watch = looked(store, ID)
    read = []
    receive = watch.metered._store.receive
    watch.metered._store.receive = lambda key, sink: read.append(key) or receive(key, sink)
    watch.look()
    assert read == []


def test_the_board_cannot_write(store):
    assert not [name for name in dir(Watch(store, resolve()[0]).store) if name in
                ("put", "create", "upload", "follow", "delete", "delete_many", "discard", "lock")]  # fmt: skip


# Tables.


def test_any_table_is_read():
    from worldmodels.board.details import PANELS

    panels = [panel for panel in PANELS if panel.stage == "vae"]
    assert columns(b"", panels) == {}
    assert columns(b"<b>,step,kl\nx,1,<script>\ny,2,nan\nz,3\n", panels) == {"step": [1, 2, 3], "kl": [None] * 3}
    assert columns(b"step,kl\n1," + b"9" * 200_000 + b"\n", panels) == {}  # csv refuses the cell
    rows = "".join(f"{i},{i % 97},{-i}\n" for i in range(50_000))
    found = columns(f"step,kl,squared_error\n{rows}".encode(), panels)
    assert len(found["step"]) <= 2 * POINTS and max(found["kl"]) == 96 and found["step"][-1] == 49_999


# The addresses.


@pytest.mark.parametrize(
    ("path", "host", "code"),
    [
        (f"/{TOKEN}/", "127.0.0.1:8000", 200),
        (f"/{TOKEN}/", "localhost", 200),
        (f"/{TOKEN}/state.json", "evil.example", 403),
        (f"/{TOKEN}/board.js", "127.0.0.1.evil.example:80", 403),
        ("/", "127.0.0.1:8000", 403),
        ("/another/", "127.0.0.1:8000", 403),
        ("/another/state.json", "127.0.0.1:8000", 403),
        (f"/{TOKEN}x/", "127.0.0.1:8000", 403),
        ("/board.js", "127.0.0.1:8000", 403),
        (f"/{TOKEN}/../{TOKEN}/x", "127.0.0.1:8000", 404),
        (f"/{TOKEN}/films/0.webp", "127.0.0.1:8000", 404),
        (f"/{TOKEN}/..%2f..%2fserver.py", "127.0.0.1:8000", 404),
    ],
)
def test_only_the_printed_address_is_answered(store, path, host, code):
    answer = client(looked(store)).get(path, headers={"Host": host})
    assert answer.status_code == code
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert code == 200 or b"small" not in answer.data


def test_an_unchanged_state_is_not_sent_again(store):
    watch = looked(store, ID)
    first = get(watch, f"state.json?run={ID}")
    assert ID in first.json["details"]
    assert get(watch, f"state.json?run={ID}", **{"If-None-Match": first.headers["ETag"]}).status_code == 304
    assert get(watch, "state.json?run=../../etc&run=" + "x" * 5000).json["details"] == {}


def test_stored_text_is_never_markup(store):
    begin(store, "vae")
    beat(store, "vae", host=HOSTILE)
    (store.root / "small/iter-1/vae/logs/20260101T000000-worker-00000.log").write_text(
        f"2026-01-01 10:00:00 I {HOSTILE}\n"
    )
    (store.root / "small/iter-1/vae/live").mkdir(exist_ok=True)
    (store.root / "small/iter-1/vae/live/training.csv").write_text(f'step,kl,"{HOSTILE}"\n1,"{HOSTILE}",2\n')
    watch = looked(store, ID)
    watch.state = lambda chosen=(): watch.document(watch.details)  # the page contains details when it is written
    text = get(watch).text
    assert text.count("<script") == 4 and "<img" not in text
    found = json.loads(re.search(r'<script type="application/json" id="state">(.*?)</script>', text, re.DOTALL)[1])
    shown = found["details"][ID]["stages"][1]["workers"][0]["host"]
    assert shown == HOSTILE.replace("\u202e", "\\u202e")
    assert found["details"][ID]["curves"]["vae"] == {"step": [1], "kl": [None]}


def test_a_film_is_sent_only_as_it_was_committed(store):
    name = store.root / "small/iter-1/evaluate"
    (manifest,) = name.glob("manifest*.json")
    found = json.loads(manifest.read_text())
    found.pop("checksum")
    film = io.BytesIO(b"RIFF0000WEBP")
    key = "small/iter-1/evaluate/data/x/drive.webp"
    store.put(key, film.getvalue())
    sha = __import__("hashlib").sha256(film.getvalue()).hexdigest()
    found["telemetry"]["drive.webp"] = {"key": key, "size": 12, "sha256": sha}
    manifest.write_text(json.dumps(found))
    watch = looked(store, ID)
    (entry,) = watch.state([ID])["details"][ID]["films"]
    answer = get(watch, entry["address"])
    assert (answer.status_code, answer.data, answer.mimetype) == (200, film.getvalue(), "image/webp")
    store.put(key, b"RIFF0000EVIL")
    assert get(watch, entry["address"]).status_code == 404


# Static files.


def test_the_page_is_written_as_files(store, tmp_path):
    watch = Watch(store, resolve()[0])
    size = writing.write(watch, tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    state = json.loads(re.search(r'id="state">(.*?)</script>', page, re.DOTALL)[1])
    assert state["after"] is None and ID in state["details"] and state["details"][ID]["curves"]["controller"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*server.ASSETS, "index.html"}
    assert size == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    with pytest.raises(ConfigError, match="inside the store"):
        writing.write(watch, store.root / "page")


# The command.


def start(store, *arguments):
    command = [sys.executable, "-m", "wm", "board", "--store", str(store.root), *arguments]
    env = os.environ | {"WM_RUN": "", "WM_CONFIG": ""}
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, preexec_fn=heed
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_board(store, number, code):
    process = start(store)
    address = re.search(r"http://127\.0\.0\.1:\d+/\S{32}/", process.stdout.readline())
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert address and process.returncode == code, stderr


def test_a_taken_port_and_a_missing_folder_have_a_next_command(store, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = start(store, "--port", str(taken.getsockname()[1]))
        _, stderr = busy.communicate(timeout=60)
    assert busy.returncode == 43 and "Address already in use" in stderr and "next: wm board --port 0" in stderr
    odd = start(store, "Bad Name")
    assert odd.wait(60) == 43 and "run name 'Bad Name'" in odd.stderr.read()
    absent = start(LocalStore(tmp_path / "absent"))
    _, stderr = absent.communicate(timeout=60)
    assert absent.returncode == 11 and "next: wm run --preset demo" in stderr


def test_a_missing_package_is_named(monkeypatch, store):
    for name in [name for name in sys.modules if name.startswith("worldmodels.board")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flask", None)
    with pytest.raises(ConfigError, match="needs the package flask") as caught:
        cli.main(["board", "--store", str(store.root)], standalone_mode=False)
    assert caught.value.next == "pip install 'world-models-carracing[board]'"


# A real browser.


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_curves_and_what_changes(store, scheme):
    begin(store, "vae")
    beat(store, "vae", host=HOSTILE)
    live = store.root / "small/iter-1/vae/live/training.csv"
    live.parent.mkdir(exist_ok=True)
    live.write_text("step,squared_error,kl\n1,5,2\n2,4,3\n")
    watch = Watch(store, resolve()[0])
    watch.find()
    with server.listen(0) as found, browsing(scheme) as (page, said, asked):
        served, address = server.serve(watch, found)
        watch.start()
        threading.Thread(target=served.serve_forever, daemon=True).start()
        page.goto(address)
        panel = page.locator("figure[data-panel='V: squared error per frame'] svg")
        panel.wait_for()
        assert panel.get_attribute("aria-label").endswith("training ends at 4")
        live.write_text("step,squared_error,kl\n1,5,2\n2,4,3\n3,1.25,4\n")
        page.locator("[aria-label$='training ends at 1.25']").wait_for()
        panel.hover()
        assert page.locator(".tip:visible").inner_text().split() == ["step", "2", "training", "small", "4"]
        assert page.locator("#details").inner_text().count("<script>alert(1)") == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("#runs input").first.uncheck()
        page.get_by_text("Choose a run").wait_for()
        assert said == []
        assert {url for url in asked if not url.startswith(address)} == set()
        served.shutdown()
        watch.end()


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_a_browser_shows_the_written_page(store, tmp_path):
    writing.write(Watch(store, resolve()[0]), tmp_path / "out")
    with browsing("light") as (page, said, asked):
        page.goto((tmp_path / "out/index.html").as_uri())
        page.locator("figure[data-panel='C: score'] svg").wait_for()
        assert said == [] and all(url.startswith("file:") for url in asked)


class browsing:  # noqa: N801
    """A page of a phone's width, its console's errors, and the addresses that it asked for."""

    def __init__(self, scheme):
        self._scheme = scheme

    def __enter__(self):
        playwright = pytest.importorskip("playwright.sync_api")
        self._manager = playwright.sync_playwright()
        started = self._manager.start()
        self._browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = self._browser.new_page(viewport={"width": 400, "height": 800}, color_scheme=self._scheme)
        said, asked = [], []
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        return page, said, asked

    def __exit__(self, *_):
        self._browser.close()
        self._manager.__exit__(None, None, None)


def test_every_asset_is_packaged():
    static = Path(server.__file__).parent / "static"
    assert {path.name for path in static.iterdir()} == {*server.ASSETS, *server.LIVE}
