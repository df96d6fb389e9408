"""`wm drive`: a film of a drive, whose score is the one that `wm evaluate` finds."""

import json
import re
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from test_board import CHROMIUM, browsing

import worldmodels
from worldmodels.errors import ConfigError
from worldmodels.interchange import filming


def test_the_film_shows_the_drive_that_evaluate_scores(finished, tmp_path):
    file = tmp_path / "drive.webp"
    done = finished("drive", "tiny", "--seed", "7", "--steps", "50", "--to", str(file))
    assert done.returncode == 0, done.stderr
    film = Image.open(file)
    assert (film.n_frames, film.size[0]) == (25, filming.WIDTH)
    run = worldmodels.open(finished.store).run("tiny")
    views = list(filming.drive(run, "mean", 7))
    scored = json.loads(finished("evaluate", "--seeds", "7:8", "--json").stdout)["scores"][0]
    assert (round(views[-1].score, 3), views[-1].step) == (round(scored["score"], 3), scored["steps"])
    assert f"score {views[49].score:.1f} after 50 steps" in done.stdout


def test_an_mp4_has_every_picture_in_a_form_that_browsers_play(finished, tmp_path):
    file = tmp_path / "drive.mp4"
    done = finished("drive", "tiny", "--seed", "7", "--steps", "50", "--to", str(file))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["drive.mp4"]
    about = next(imageio_ffmpeg.read_frames(file))
    assert (about["codec"], about["pix_fmt"][:7], about["size"]) == ("h264", "yuv420p", (filming.WIDTH, 524))
    assert imageio_ffmpeg.count_frames_and_secs(file) == (25, 1.0)
    data = file.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_an_mp4_plays_in_a_browser(finished, tmp_path):
    finished("drive", "tiny", "--seed", "7", "--steps", "50", "--to", str(tmp_path / "drive.mp4"))
    (tmp_path / "page.html").write_text("<video src=drive.mp4 muted autoplay></video>")
    with browsing("light") as (page, _, _):
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_function("document.querySelector('video').ended")
        width, seconds = page.evaluate("(v => [v.videoWidth, v.duration])(document.querySelector('video'))")
    assert (width, seconds) == (filming.WIDTH, 1)


def test_an_odd_picture_becomes_even_and_a_failing_ffmpeg_is_an_error_of_the_file(tmp_path):
    filming._mp4(iter([Image.new("RGB", (481, 523))] * 3), 25, tmp_path / "odd.mp4")
    assert next(imageio_ffmpeg.read_frames(tmp_path / "odd.mp4"))["size"] == (482, 524)
    with pytest.raises(OSError, match="ffmpeg, which writes it, has ended"):
        filming._mp4(iter([Image.new("RGB", (480, 524))] * 300), 25, Path("/dev/full"))


def test_without_its_package_an_mp4_is_refused_before_the_drive(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigError, match=r"a\.mp4: mp4 needs the package imageio_ffmpeg") as caught:
        filming.check(Path("a.mp4"))
    assert caught.value.next.endswith("[mp4]'")
    filming.check(Path("a.webp"))


def test_each_view_has_the_frame_and_its_reconstruction_and_prediction(finished):
    run = worldmodels.open(finished.store).run("tiny")
    first, second, *_ = filming.drive(run, 1, 7, steps=3)
    assert first.frame.shape == first.reconstruction.shape == first.prediction.shape == (64, 64, 3)
    z, _ = run.encode(second.frame[None])
    assert np.array_equal(run.decode(z)[0], second.reconstruction)
    assert not np.array_equal(second.prediction, second.reconstruction)


def test_wrong_arguments_name_what_is_wrong(finished, tmp_path):
    for words, code, says in (
        (("drive", "tiny", "--controller", "x"), 2, "'x' is not mean, best or the number"),
        (("drive", "tiny", "--controller", "99"), 11, "99"),
        (("drive", "tiny", "--to", "film.gif"), 2, "ends with .webp or .mp4"),
        (("drive", "none"), 11, "there is no run .none.*it has tiny"),
        (("drive", "tiny", "--steps", "2", "--to", str(tmp_path / "x.webp" / "y.webp")), 0, "y.webp"),
        (("drive", "tiny", "--steps", "2", "--to", "/proc/none/y.webp"), 13, "cannot be written"),
    ):
        done = finished(*words)
        assert done.returncode == code and re.search(says, done.stdout + done.stderr), done
