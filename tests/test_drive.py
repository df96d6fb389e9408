"""`wm drive`: a film of a drive, whose score is the one that `wm evaluate` finds."""

import json
import re

import numpy as np
from PIL import Image

import worldmodels
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
        (("drive", "tiny", "--to", "film.mp4"), 2, "ends with .webp"),
        (("drive", "none"), 11, "there is no run .none.*it has tiny"),
        (("drive", "tiny", "--steps", "2", "--to", str(tmp_path / "x.webp" / "y.webp")), 0, "y.webp"),
        (("drive", "tiny", "--steps", "2", "--to", "/proc/none/y.webp"), 13, "cannot be written"),
    ):
        done = finished(*words)
        assert done.returncode == code and re.search(says, done.stdout + done.stderr), done
