"""`wm track`: the store's curves, each point once, as TensorBoard and MLflow read them."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
import small_run
from test_board import begin

from worldmodels.board.watching import Watch
from worldmodels.config import resolve
from worldmodels.errors import Busy, ConfigError, StoreError
from worldmodels.planning import store_config
from worldmodels.store import LocalStore
from worldmodels.tracking.event_files import EventFiles
from worldmodels.tracking.following import look, missing

NAME = "small/iter-1"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("track")
    return small_run.build(folder / "store", folder / "scratch").root


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made, tmp_path / "store")
    return LocalStore(tmp_path / "store")


def pictures(store):
    watch = Watch(store, resolve(None, (), ())[0], points=float("inf"))
    return list(look(watch))


def write(store, folder):
    """Follow the store once, as a command of its own; return the number of new points."""
    files = EventFiles(folder)
    try:
        return sum(files.write(picture) for picture in pictures(store))
    finally:
        files.close()


def scalars(folder):
    """Return what TensorBoard finds: lists of (step, value) by tag, doubled points included."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / NAME), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def hyperparameters(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

    found = EventAccumulator(str(folder / NAME))
    found.Reload()
    (data,) = found.PluginTagToContent("hparams").values()
    return parse_session_start_info_plugin_data(data).hparams


def table(rows):
    return "step,loss,squared_error,kl\n" + "".join(f"{i},{9 / i:.6f},{8 / i:.6f},{1 / i:.6f}\n" for i in rows)


@pytest.fixture
def live(store):
    """V is under way: a function that writes the rows of its table so far."""
    begin(store, "vae")
    key = "small/iter-1/vae/live/training.csv"
    (store.root / key).parent.mkdir(exist_ok=True)
    store.put("small/iter-1/vae/logs/20260101T000000-worker-00000.log", b"2026-01-01 10:00:00 I begins\n")

    def write_rows(text):
        store.delete(key)
        time.sleep(0.01)  # the clock of the file system tells tables apart
        store.put(key, text.encode())

    return write_rows


def test_tensorboard_finds_every_point_of_the_curves_and_the_score_once(store, tmp_path):
    assert write(store, tmp_path / "tb") == 20
    assert write(store, tmp_path / "tb") == 0
    found = scalars(tmp_path / "tb")
    (picture,) = pictures(store)
    assert {tag: dict(points) for tag, points in found.items()} == picture.curves
    assert sum(map(len, found.values())) == 20
    assert [step for step, _ in found["controller/mean"]] == [1, 2, 3, 4, 5]
    assert found["evaluate/mean"] == [(1, 15.75)]


def test_settings_are_hyperparameters(store, tmp_path):
    write(store, tmp_path)
    found = hyperparameters(tmp_path)
    assert found["controller.population"].number_value == 6
    assert found["controller.covariance"].string_value and found["vae.warm_start"].WhichOneof("kind") == "bool_value"
    assert "controller.start_from" not in found  # it is not set
    assert not [key for key in found if key.startswith(("kubernetes", "execution"))]


def test_a_curve_grows_over_restarts_without_doubled_points(store, live, tmp_path):
    for rows in (2, 2, 5, 900):
        live(table(range(1, rows + 1)))
        write(store, tmp_path)
    found = scalars(tmp_path)["vae/squared_error"]
    assert [step for step, _ in found] == list(range(1, 901))  # all rows, where the board draws some 600
    live(table(range(1, 400)))  # the training was killed and resumed
    write(store, tmp_path)
    live(table(range(1, 1000)))
    assert write(store, tmp_path) == 2 * 99
    assert [step for step, _ in scalars(tmp_path)["vae/kl"]] == list(range(1, 1000))


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_record_that_a_kill_left_incomplete_is_written_again(store, tmp_path, cut):
    write(store, tmp_path)
    whole = scalars(tmp_path)
    (path,) = tmp_path.rglob("events*")
    path.write_bytes(path.read_bytes()[:-cut])
    assert write(store, tmp_path) == 1
    assert scalars(tmp_path) == whole


def test_a_stage_that_was_made_again_replaces_the_file(store, live, tmp_path):
    live(table([1, 2, 3]))
    write(store, tmp_path)
    live(table([1, 2, 3]).replace("8.0", "7.5"))
    assert write(store, tmp_path) == 20 + 2 * 3
    assert scalars(tmp_path)["vae/squared_error"][0] == (1, 7.5)
    assert len(list(tmp_path.rglob("events*"))) == 1
    store_config(store, small_run.RUN, 1, *resolve("demo", (), (*small_run.OVERRIDES, "controller.sigma=0.3")))
    write(store, tmp_path)
    assert hyperparameters(tmp_path)["controller.sigma"].number_value == 0.3
    assert len(list(tmp_path.rglob("events*"))) == 1


def test_two_followers_do_not_write_one_file(store, tmp_path):
    (picture,) = pictures(store)
    first = EventFiles(tmp_path)
    first.write(picture)
    with pytest.raises(Busy, match="another `wm track` writes this file"):
        EventFiles(tmp_path).write(picture)
    first.close()


def test_points_after_the_end_of_a_curve_are_no_contradiction():
    assert missing({"a": {1: 1.0, 2: 2.0}}, {"a": {1: 1.0}, "b": {1: 5.0}}) == {"b": {1: 5.0}}
    assert missing({"a": {1: 1.0}}, {"a": {1: 1.5}}) is None
    assert missing({"a": {1: 1.0}}, {"a": {2: 1.0}}) is None
    assert missing({"a": {1: 1.0}}, {}) == {}


def test_the_command_follows_until_ctrl_c_and_does_not_import_tensorflow(store, live, wm, tmp_path):
    live(table([1, 2]))
    wm.store = store.root
    process = wm.start("track", "small", "--tensorboard", str(tmp_path / "tb"))
    assert process.stdout.readline().endswith("followed until Ctrl-C; runs go on\n")
    assert process.stdout.readline() == f"{NAME}: 24 new points\n"
    live(table([1, 2, 3]))
    assert process.stdout.readline() == f"{NAME}: 2 new points\n"
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert wm("track", "small", "--tensorboard", str(tmp_path / "tb"), "--once").stdout == f"{NAME}: 0 new points\n"
    code = "import sys, wm.main; wm.main.cli(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    command = [sys.executable, "-c", code, "track", "small", "--tensorboard", str(tmp_path / "tb"), "--once"]
    done = subprocess.run(command, env=wm.environment(), capture_output=True, text=True, check=True)
    assert "tensorboard" in done.stdout and not {"tensorflow", "keras"} & set(done.stdout.split())


def test_what_cannot_be_written_is_refused_with_the_command_to_type(store, wm, tmp_path):
    wm.store = store.root
    for words, code, says in (
        (("track",), 2, "say where to"),
        (("track", "none", "--tensorboard", str(tmp_path / "x"), "--once"), 11, "there is no run none in"),
        (("track", "--tensorboard", str(store.root / "tb")), 43, "inside the store"),
        (("track", "--store", str(tmp_path / "no"), "--tensorboard", "x"), 11, "there is no folder"),
        (("track", "small", "--tensorboard", "/proc/none", "--once"), 13, "/proc/none"),
    ):
        done = wm(*words)
        assert done.returncode == code and says in done.stderr, done


def test_a_package_that_is_missing_is_named_with_its_command(store, monkeypatch):
    from wm.track import _trackers

    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "worldmodels.tracking.mlflow_runs", raising=False)
    watch = Watch(store, resolve(None, (), ())[0])
    with pytest.raises(ConfigError, match="mlflow") as caught:
        _trackers(watch, None, "http://127.0.0.1:1")
    assert caught.value.next.endswith("[mlflow]'")


# MLflow, where it is installed.


@pytest.fixture
def uri(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    return f"sqlite:///{tmp_path}/mlflow.db"


def track(store, uri):
    from worldmodels.tracking.mlflow_runs import MlflowRuns

    tracker = MlflowRuns(uri, store.uri)
    return sum(tracker.write(picture) for picture in pictures(store))


def runs(uri):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("worldmodels")
    return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])


def test_mlflow_gets_each_point_once(store, live, uri):
    live(table([1, 2]))
    assert track(store, uri) == 20 + 4
    assert track(store, uri) == 0
    live(table(range(1, 700)))
    assert track(store, uri) == 2 * 697
    client, (run,) = runs(uri)
    history = client.get_metric_history(run.info.run_id, "vae/kl")
    assert sorted(each.step for each in history) == list(range(1, 700))
    assert run.data.params["controller.population"] == "6" and run.info.status == "RUNNING"
    assert run.info.run_name == NAME and run.data.tags["wm.iteration"] == "1"


def test_mlflow_gets_a_new_run_for_a_stage_that_was_made_again(store, live, uri):
    live(table([1, 2]))
    track(store, uri)
    live(table([1, 2]).replace("8.0", "7.5"))
    track(store, uri)
    assert track(store, uri) == 0
    _, (new, old) = runs(uri)
    assert "wm.replaced" in old.data.tags and "wm.replaced" not in new.data.tags


def test_an_mlflow_that_refuses_is_told(store, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match="MLflow: "):
        track(store, "http://127.0.0.1:9")
