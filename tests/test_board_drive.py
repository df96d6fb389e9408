"""The live drive of the board, with the networks and the controller of the package."""

import hashlib
import io
import json
import os
import re
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from test_board import CHROMIUM, TOKEN, browsing, looked

import worldmodels
from worldmodels.board import driving, server, writing
from worldmodels.board.driving import CALM, Driving, Move, Start
from worldmodels.board.watching import Watch
from worldmodels.config import resolve
from worldmodels.errors import MissingInput
from worldmodels.interchange import drives, filming
from worldmodels.rollouts.episodes import Episode
from worldmodels.store import PackagedStore

TRACK = 300_000_001
ITERATION = PackagedStore().iteration
START = {"run": "pretrained", "iteration": ITERATION, "controller": "mean", "track": TRACK}
MOVE = {"steps": 2, "keys": None, "dream": False, "temperature": 1.0}
OWN = {"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def give_way(monkeypatch):
    """The function that lowers a thread's priority, which the tests' own threads keep."""
    real = driving._give_way
    monkeypatch.setattr(driving, "_give_way", lambda: None)
    return real


@pytest.fixture
def watch():
    return Watch(PackagedStore(), resolve()[0])


@pytest.fixture
def live(watch):
    return Driving(watch.store)


@pytest.fixture
def client(watch):
    return server.create(watch, TOKEN).test_client()


def test_a_run_without_its_first_stages_has_begun():
    (run,) = looked(PackagedStore()).state()["runs"]
    assert run["words"] == "4 of 7 stages are committed"


def begin(live, **more):
    return live.start(Start(**(START | more)))["id"]


def move(live, id, times=1, **more):
    for _ in range(times):
        found = live.move(id, Move(**(MOVE | more)))
    return found.facts


def post(client, path="", body=START, headers=OWN, **more):
    return client.post(f"/{TOKEN}/drives{path}", json=body, headers=headers, **more)


# The car.


def test_a_live_drive_is_the_drive_that_wm_drive_films(live):
    films = list(filming.drive(worldmodels.pretrained(), "mean", TRACK, steps=60))
    id = begin(live)
    for steps in (1, 2, 7, 10, 10, 10, 10, 10):  # however many steps a picture has
        facts = move(live, id, steps=steps)
        same = films[facts["step"] - 1]
        assert facts["score"] == round(same.score, 3)
        assert facts["action"] == [round(float(value), 3) for value in same.action]
    assert facts == {**facts, "step": 60, "dream": False, "ended": False}


def test_keys_drive_the_car(live):
    id = begin(live)
    assert move(live, id, keys=["up"])["action"] == [0, 1, 0]
    assert move(live, id, keys=["left", "up", "left"])["action"] == [-1, 1, 0]
    assert move(live, id, keys=["right", "left"])["action"] == [0, 0, 0]
    coasts, steers = begin(live), None
    move(live, coasts, 5, keys=["up"], steps=10)
    straight = live._going.drive._frame
    steers = begin(live)
    move(live, steers, 5, keys=["up", "left"], steps=10)
    assert not np.array_equal(straight, live._going.drive._frame)
    assert move(live, steers)["action"] != [0, 0, 0]  # C takes over


def test_a_picture_shows_the_track_and_what_v_and_m_make_of_it(live):
    id = begin(live)
    move(live, id, 5, steps=10)
    picture = Image.open(io.BytesIO(live.move(id, Move(**MOVE)).data))
    view, pixels = live._going.view, np.asarray(picture).astype(int)
    assert picture.size == (600, 464)
    for i, frame in enumerate((view.frame, view.reconstruction, view.prediction)):
        shown = pixels[400:, i * 64 : (i + 1) * 64]
        assert np.abs(shown - frame).mean() < 6
    assert np.abs(pixels[:400] - view.picture).mean() < 6


def test_a_drive_of_c_ends_as_an_episode_of_evaluate_and_keys_go_on(live, monkeypatch):
    monkeypatch.setattr(driving, "EPISODE", 25)
    id = begin(live)
    assert move(live, id, 5, steps=10) == {**move(live, id), "step": 25, "ended": True}
    assert move(live, id, keys=[])["step"] == 27
    assert not move(live, id)["ended"]


def test_a_run_without_a_controller_is_driven_by_keys(live):
    id = begin(live, controller=None)
    assert move(live, id, keys=["up"])["step"] == 2
    with pytest.raises(MissingInput, match="no controller drives here") as caught:
        move(live, id)
    assert caught.value.next == f"wm run controller --run pretrained --store package: --iteration {ITERATION}"


# M's dream.


def test_the_dream_is_the_one_of_the_report_from_where_the_car_is():
    run = worldmodels.pretrained()
    drive = drives.Drive(run, "mean", TRACK)
    views = [drive.step(picture=False) for _ in range(60)]
    dreamt = [drive.dream() for _ in range(8)]
    frames = np.stack([*(view.frame for view in views), dreamt[0].frame])
    actions = np.stack([*(view.action for view in views), views[-1].action])
    episode = Episode(frames, actions, np.zeros(61, np.float32), TRACK, False)
    wanted = run.dream(episode, steps=7, warm_up=60, seed=TRACK)
    assert np.array_equal(np.stack([view.reconstruction for view in dreamt]), wanted)


def test_a_dream_leaves_the_track_as_it_was(live):
    alone = begin(live)
    wanted = move(live, alone, 7, steps=10)
    id = begin(live)
    assert not move(live, id, dream=True)["dream"]  # the car first drives for a second
    while move(live, id)["step"] < CALM:
        pass
    facts = move(live, id, 5, dream=True, keys=["left"])
    assert (facts["dream"], facts["step"], facts["action"]) == (True, CALM, [-1, 0, 0])
    dreamt = live.move(id, Move(**MOVE | {"dream": True, "keys": ["left"]})).data
    assert Image.open(io.BytesIO(dreamt)).size == (192, 64)  # there is no picture of a track
    assert not live._going.by_keys
    assert move(live, id, 2, steps=10) == {**wanted, "step": 70}


def test_a_high_temperature_spreads_the_dream():
    far = {}
    for temperature in (0.1, 2.0):
        drive = drives.Drive(worldmodels.pretrained(), "mean", TRACK)
        for _ in range(CALM):
            drive.step(picture=False)
        drive.dream(temperature=temperature)
        z, memory = drive._dreamt
        far[temperature] = np.abs(z - memory.expected).mean()
    assert far[0.1] < far[2.0] / 2


# One drive per board.


def test_the_next_drive_takes_the_place_of_the_last(live):
    first = begin(live)
    old = live._going.drive
    second = begin(live)
    assert old._lanes._envs == [None]
    with pytest.raises(MissingInput, match="this drive was closed: another one began"):
        move(live, first)
    live.end(first)
    assert move(live, second)["step"] == 2
    live.end(second)
    assert live._going is None


def test_a_drive_that_no_page_asks_for_is_closed(watch, monkeypatch):
    monkeypatch.setattr(driving, "IDLE_SECONDS", 0.4)
    live = Driving(watch.store)
    id, until = begin(live), time.monotonic() + 0.7
    while time.monotonic() < until:
        move(live, id)
    until = time.monotonic() + 10
    while live._going and time.monotonic() < until:
        time.sleep(0.05)
    assert live._going is None


def test_a_drive_gives_way_to_a_run(live, give_way, monkeypatch):
    monkeypatch.setattr(driving, "_give_way", give_way)
    before, found = os.getpriority(os.PRIO_PROCESS, 0), []
    thread = threading.Thread(target=lambda: found.extend((begin(live), os.getpriority(os.PRIO_PROCESS, 0))))
    thread.start()
    thread.join()
    assert found[1] == max(driving.NICENESS, before)
    if sys.platform == "linux":
        assert os.getpriority(os.PRIO_PROCESS, 0) == before  # the threads that answer for the page are as fast as ever


# The addresses.


def test_the_page_drives(client):
    id = post(client).json["id"]
    answer = post(client, f"/{id}", MOVE)
    assert answer.mimetype == "image/jpeg" and json.loads(answer.headers["Wm-View"])["step"] == 2
    assert client.delete(f"/{TOKEN}/drives/{id}", headers=OWN, content_type="application/json").status_code == 204
    assert post(client, f"/{id}", MOVE).json["error"].startswith("this drive was closed")


@pytest.mark.parametrize(
    "headers",
    [
        {**OWN, "Origin": "http://evil.example"},
        {**OWN, "Origin": "null"},
        {**OWN, "Origin": "http://127.0.0.1:2"},
        {**OWN, "Sec-Fetch-Site": "cross-site"},
        {**OWN, "Sec-Fetch-Site": "same-site"},
        {**OWN, "Host": "evil.example", "Origin": "http://evil.example"},
        {**OWN, "Content-Type": "text/plain"},
    ],
)
def test_another_origin_drives_nothing(client, headers):
    assert post(client, headers=headers).status_code == 403
    assert (
        client.delete(f"/{TOKEN}/drives/x", headers={"Content-Type": "application/json"} | headers).status_code == 403
    )


def test_a_drive_needs_the_token_and_a_small_request(client):
    assert client.post("/another/drives", json=START, headers=OWN).status_code == 403
    assert client.get(f"/{TOKEN}/drives", headers=OWN).status_code == 405
    assert post(client, body=START | {"run": "x" * 5000}).status_code == 409


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (START | {"run": "night"}, "there is no run 'night' in package:; it has pretrained"),
        (START | {"run": "../../etc"}, "run name '../../etc': use 1 to 48 of a-z"),
        (
            START | {"iteration": 7},
            f"has no iteration 7; it has {ITERATION}; next: wm run --run pretrained --iteration 7 --store",
        ),
        (START | {"controller": 999}, "generation 999: the controller has generations 1 to 150; next: wm evaluate"),
        (START | {"controller": "worst"}, "controller 'worst': Input should be 'mean' or 'best'"),
        (START | {"track": -1}, "track -1: Input should be greater than or equal to 0"),
        (START | {"track": "1"}, "track '1': Input should be a valid integer"),
        (START | {"code": 1}, "code 1: Extra inputs are not permitted"),
        ([], "request []: Input should be an object"),
    ],
)
def test_a_wrong_start_is_said_in_words(client, body, says):
    answer = post(client, body=body)
    assert answer.status_code == 409 and says in answer.json["error"], answer.json


@pytest.mark.parametrize("more", [{"steps": 0}, {"steps": 11}, {"keys": ["space"]}, {"temperature": 0}, {"dream": 1}])
def test_a_wrong_move_is_refused(client, more):
    id = post(client).json["id"]
    assert post(client, f"/{id}", MOVE | more).json["error"].startswith(next(iter(more)))


def test_a_missing_package_is_named(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in [name for name in sys.modules if name.startswith("worldmodels.envs.")]:
        monkeypatch.delitem(sys.modules, name)
    said = post(client).json["error"]
    assert said.startswith("a drive needs the package numba") and said.endswith("carracing[play]'")


def test_a_controller_that_is_no_number_is_an_error_in_words(live, monkeypatch):
    monkeypatch.setattr(worldmodels.api.Run, "parameters", lambda run, which: np.full(5000, np.nan, np.float32))
    with pytest.raises(
        worldmodels.errors.CorruptArtifact, match=f"pretrained/iter-{ITERATION}: V, M or C gives"
    ) as caught:
        move(live, begin(live), 3)
    assert caught.value.next == "wm verify --store package:"


# The store.


def test_driving_changes_nothing_in_the_store(finished):
    def content():
        files = sorted(path for path in finished.store.rglob("*") if path.is_file())
        return [(path, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest()) for path in files]

    before = content()
    live = Driving(Watch(worldmodels.store.LocalStore(finished.store), resolve()[0]).store)
    id = begin(live, run="tiny", iteration=1)
    move(live, id, 30)
    move(live, id, 3, dream=True, keys=["up"])
    live.end(id)
    assert content() == before


def test_the_page_as_files_has_no_drive(watch, tmp_path):
    writing.write(watch, tmp_path / "out")
    assert "drive" not in (tmp_path / "out/index.html").read_text().split("</head>")[1]
    assert not (tmp_path / "out/drive.js").exists()


# A real browser.


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_a_browser_drives_by_keys_and_dreams(watch, live, monkeypatch):
    monkeypatch.setattr(server, "Driving", lambda store: live)
    watch.find()
    with server.listen(0) as found, browsing("dark") as (page, said, asked):
        served, address = server.serve(watch, found)
        watch.start()
        threading.Thread(target=served.serve_forever, daemon=True).start()
        page.goto(address)
        page.get_by_text("Drive", exact=True).click()
        page.get_by_role("button", name="Start").click()
        facts, gas = page.locator("#drive-facts"), page.locator("dt:text('gas') + dd > i")
        page.locator("#drive-facts", has_text=re.compile(r"step \d{3}")).wait_for()
        page.get_by_role("radio", name="arrow keys").check()
        top = page.evaluate("scrollY")
        page.keyboard.down("ArrowUp")
        gas.and_(page.locator("[style*='width: 100%']")).wait_for(state="attached")
        page.keyboard.up("ArrowUp")
        gas.and_(page.locator("[style*='width: 0%']")).wait_for(state="attached")
        assert page.evaluate("scrollY") == top
        page.get_by_role("radio", name="M's dream").check()
        page.get_by_text("M's dream, which has no score").wait_for()
        page.get_by_role("button", name="Pause").click()
        page.wait_for_timeout(300)
        moves = len(asked)
        page.wait_for_timeout(500)
        assert not [url for url in asked[moves:] if "/drives/" in url]
        assert facts.inner_text().startswith("pretrained")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert [text for text in said if "404" not in text] == []  # the package leaves its film out
        assert {url for url in asked if not url.startswith(address)} == set()
        assert live._going
        page.goto("about:blank")
        until = time.monotonic() + 10
        while live._going and time.monotonic() < until:
            time.sleep(0.05)
        assert live._going is None  # the page closes its drive when it goes away
        served.shutdown()
        watch.end()
