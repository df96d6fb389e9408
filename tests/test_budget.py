"""Limits of hours and cost: a stop that changes no byte, counted over all starts."""

import json
import re
import shlex
import shutil

import pytest
import small_run
from click.testing import CliRunner
from test_hints import context, recommended
from wm.main import cli

from worldmodels.artifacts import Name
from worldmodels.config.cluster import Prices
from worldmodels.errors import ConfigError, LimitReached, StoreError
from worldmodels.executors.budget import Limits, Meter, Usage, of_pods, spent
from worldmodels.store import LocalStore
from worldmodels.store.base import GET_BYTES

NAME = Name("small", 1, "vae")
PRICES = Prices(cpu_hour=0.1, gpu_hour=3.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")
    return small_run.build(folder / "store", folder / "scratch").root


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made, tmp_path / "store")
    return LocalStore(tmp_path / "store")


def work(store, limits, *times, cores=2.0, gpus=0.0, said=None):
    """Work on V, with a look at the clock at each of these times in seconds; the stop takes 5 s more."""
    now = [0.0]
    say = (lambda words: None) if said is None else said.append
    meter = Meter(store, "small", limits, "wm run", say, clock=lambda: now[0])
    with meter.stage(NAME):
        try:
            for now[0] in times:
                meter.tick(cores, gpus)
        finally:
            now[0] += 5


def counts(store):
    return [json.loads(path.read_text()) for path in sorted(store.root.glob("small/*/vae/spent/*.json"))]


def test_a_run_that_a_limit_stops_again_and_again_gives_the_same_bytes(wm, finished):
    """Follow the recommended commands to the end of rollouts and V."""
    stages, stops = ("rollouts", "vae"), 0
    done = wm.run(*stages, "--max-hours", "0.0005")
    while done.returncode == 46:
        stops += 1
        assert "tiny has worked for " in done.stderr and "; a higher limit goes on from here" in done.stderr
        (command,) = recommended(done)
        words = shlex.split(command)
        assert words[2:4] == list(stages) and words.count("--max-hours") == 1
        context(command)
        done = wm(*words[1:])
    assert done.returncode == 0, done.stderr
    assert stops >= 2
    assert wm.digests().items() <= finished.digests().items()


def test_a_limit_that_is_used_up_begins_nothing(copy):
    shutil.rmtree(copy.store / "tiny/iter-1/evaluate")
    before = sorted(copy.store.rglob("*"))
    done = copy.run("--max-hours", "0.0001", "--max-cost", "1e-6", "-o", "kubernetes.prices.cpu_hour=1")
    assert done.returncode == 46
    assert re.search(r"has worked for .*; it has cost .*, and --max-cost is 1e-06", done.stderr)
    assert "--max-hours 0.0002 --max-cost 2e-06" in done.stderr
    assert sorted(copy.store.rglob("*")) == before


def test_every_start_counts_and_so_does_the_time_of_the_stop(store):
    work(store, Limits(), 10, 20, 25)
    work(store, Limits(), 50)
    assert sorted(count["seconds"] for count in counts(store)) == [30, 55]
    assert {count["core_seconds"] / count["seconds"] for count in counts(store)} == {2}
    others = 60.0 * 5  # the manifests of the other five stages
    assert spent(store, "small") == Usage(85 + others, 170 + others)
    card = CliRunner().invoke(cli, ["show", "small/iter-1/vae", "--store", str(store.root)]).output
    assert card.endswith(
        "small/iter-1/vae worked for 1 min 25 s in 2 starts, redone work included: 0.0472 core-hours\n"
    )
    with (store.root / NAME.key("spent", "huge.json")).open("wb") as file:
        file.truncate(GET_BYTES + 1)
    assert spent(store, "small") == Usage(85 + others, 170 + others)
    with pytest.raises(LimitReached, match="small has worked for 7 min 06 s, and --max-hours is"):
        work(store, Limits(hours=0.118), 20, 39, 41, 99)
    assert spent(store, "small").seconds == 85 + others + 41 + 5


def test_a_cost_is_that_of_cores_and_gpus_at_the_callers_prices(store):
    work(store, Limits(), 3600, gpus=1.0, cores=0.0)
    others = 300 / 3600 * 0.1
    with pytest.raises(LimitReached, match="small has cost") as caught:
        work(store, Limits(cost=3.0 + others + 0.1, prices=PRICES), 1000, 1795, 1800)
    assert caught.value.next == f"wm run --max-cost {2 * (3.0 + others + 0.1):g}"
    with pytest.raises(ConfigError, match="cpu_hour is 0"):
        Limits(cost=5.0)


def test_a_count_is_stored_every_minute_so_that_a_kill_loses_little(store):
    class Killed(BaseException):
        pass

    def clock():
        if now[0] == 130:
            raise Killed
        return now[0]

    now = [0.0]
    meter = Meter(store, "small", Limits(), "wm run", clock=clock)
    with pytest.raises(Killed), meter.stage(NAME):
        for now[0] in (30, 61, 100, 122, 130):
            meter.tick(1.0)
    assert counts(store) == [{"seconds": 122, "core_seconds": 122, "gpu_seconds": 0}]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"seconds": -1, "core_seconds": 0, "gpu_seconds": 0}',
                                     b'{"seconds": 1e999}', b'{"seconds": 1}', b"x" * 20_000])  # fmt: skip
def test_damaged_counts_count_as_absent(store, content):
    store.put(NAME.key("spent", "20260101T000000-0123abcd.json"), content)
    (store.root / "small/iter-1/memory/manifest.json").write_text("{}")
    assert spent(store, "small").seconds == 60.0 * 4


def test_a_store_that_takes_no_count_does_not_end_the_run(store, monkeypatch):
    def fails(key, data):
        raise StoreError("it is down")

    said = []
    monkeypatch.setattr(store, "put", fails)
    work(store, Limits(), 10, 70, said=said)
    assert set(said) == {"the hours used are not stored: it is down"}


def test_pods_cost_as_the_estimate_says():
    config = small_run.config()[0]
    task = small_run.Task("small", 1, "vae", config)
    assert of_pods(task, 1) == (0.0, 1)
    assert of_pods(small_run.Task("small", 1, "controller", config), 4) == (4.0, 0.0)


def test_limits_travel_as_json():
    limits = Limits(2.5, 10.0, PRICES)
    assert Limits.from_json(limits.to_json()) == limits and limits and not Limits()


def test_a_dry_run_refuses_what_the_run_would(wm):
    for option, says in ((("--max-cost", "1"), "cpu_hour is 0"), (("--notify", "ftp://x/y"), "begins with ftp:")):
        done = wm("run", "--dry-run", *option)
        assert done.returncode == 43 and says in done.stderr
