import io
import json
import logging
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from worldmodels import artifacts, durations
from worldmodels.artifacts import Name, publishing
from worldmodels.config import Config
from worldmodels.context import Context, ProgressReporter
from worldmodels.errors import CorruptArtifact
from worldmodels.evaluation import TrackScore, comparison, summary
from worldmodels.reports import dream, page, pictures, stage
from worldmodels.reports.figures import THEME, Line, Panel, Picture, curves
from worldmodels.reports.sources import table
from worldmodels.rollouts.episodes import Episode
from worldmodels.store import LocalStore

ENV = "CarRacing-v3"
TRACKS = [
    TrackScore(
        i, score=700.0 + 30 * i, steps=900, terminated=True, tiles_visited=280 + (i > 5), tiles_total=281, lap=i > 5
    )
    for i in range(8)
]
HELDOUT = {"mdn_rnn": 12.0, "unchanged": 30.5, "gaussian": 45.2, "frames": 2400}
REWARDS = (
    "generation,best,mean,worst,std,sigma,validation,steps\n1,90,20,-5,9,0.1,,4000\n2,400,180,10,80,0.11,250.5,5000\n"
)
VISION = "step,squared_error,kl,images_per_s\n1,900,2,190\n100,60,16.1,210\n"
MEMORY = "step,loss,held_out\n1,45,\n50,13,14\n"


def webp() -> bytes:
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    return pictures.animation("x.webp", frames, "", "", scale=1).data


COMMITTED = {
    "vae": {"telemetry/training.csv": VISION},
    "memory": {"heldout.json": json.dumps(HELDOUT), "telemetry/training.csv": MEMORY},
    "controller": {"rewards.csv": REWARDS},
    "evaluate": {
        "scores.json": json.dumps({**summary(TRACKS, ENV, "fast"), "reference": comparison(TRACKS, TRACKS[:2], ENV)}),
        "telemetry/drive.webp": webp(),
    },
}
MADE = {
    "started": "then",
    "finished": "now",
    "seconds": 90.0,
    "git": "abc123",
    "versions": {"numpy": "2.0"},
    "cpu": {"model": "A <fast> CPU", "features": ["avx2"]},
}


def commit(store, folder: Path, stage_name: str, content):
    for name, data in content.items():
        path = folder / stage_name / ("telemetry" if name.startswith("telemetry/") else "results") / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    work = artifacts.identity(Name("trial", 1, stage_name), Config(), (stage_name,), {})
    files, telemetry = (
        publishing.upload(store, work.name, "a", folder / stage_name / kind, kind) for kind in ("results", "telemetry")
    )
    manifest = publishing.commit(store, work, files=files, telemetry=telemetry, shards=[], resolved={}, made=MADE)
    return artifacts.load(store, work.name, manifest, folder / "scratch")


def context(tmp_path: Path, stages) -> Context:
    store = LocalStore(tmp_path / "store")
    inputs = {name: (commit(store, tmp_path, name, content),) for name, content in stages.items()}
    (tmp_path / "results").mkdir()
    (tmp_path / "telemetry").mkdir()
    log = logging.getLogger("test")
    return Context(
        config=Config(), run="trial", iteration=1, stage="report", inputs=inputs, results=tmp_path / "results",
        telemetry=tmp_path / "telemetry", checkpoints=None, workspace=None, worker=0, workers=1, lanes=1, log=log,
        reporter=ProgressReporter(log),
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    ctx = context(tmp_path_factory.mktemp("report"), COMMITTED)
    stage.write(ctx)
    return ctx.telemetry


@pytest.fixture(scope="module")
def html(report):
    return (report / "report.html").read_text()


def section(html: str, anchor: str) -> str:
    return re.search(rf'<section id="{anchor}".*?</section>', html, re.DOTALL).group(0)


def test_the_score_stands_with_its_spread_interval_and_the_papers_beside_it(html):
    text = section(html, "score")
    for expected in (
        "805 ± 73",
        "over 8 tracks",
        "interval of the mean: 744 to 866",
        "2 of 8",
        "906 ± 21",
        "fast renderer",
        "first 2 tracks were driven on unmodified Gymnasium",
        "env.reset(seed=",
    ):
        assert expected in text


def test_the_page_needs_nothing_from_elsewhere(html):
    links = re.findall(r'(?:src|href|srcset)="([^"]{0,40})', html)
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "url(http" not in html and "@import" not in html


def test_pictures_also_stand_as_files(report):
    names = {path.name for path in report.iterdir()}
    assert {
        "report.html",
        "scores.svg",
        "evolution.svg",
        "sigma.svg",
        "vae-kl.svg",
        "memory-heldout.svg",
        "drive.webp",
    } <= names


def test_every_picture_has_a_text_that_stands_for_it(html):
    assert all(re.findall(r'<img [^>]*alt="(.*?)"', html))
    drawings = re.findall(r'<svg[^>]*role="img" aria-label="([^"]+)"', html)
    assert len(drawings) == html.count("<svg")


def test_ids_are_unique_so_that_no_drawing_borrows_anothers_parts(html):
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_memory_is_set_against_the_trivial_models(html):
    assert "M is 18.5 nats per frame better" in section(html, "m-s-predictions")


def test_lineage_names_digests_times_steps_and_code(html):
    text = section(html, "lineage")
    for expected in (
        "1 min 30 s",
        "9,000",
        "100 steps/s",
        "abc123",
        "A &lt;fast&gt; CPU",
        "200 images/s",
        "iter-1/controller",
    ):
        assert expected in text


def test_missing_stages_are_said_in_a_sentence(tmp_path):
    ctx = context(tmp_path, {"vae": COMMITTED["vae"]})
    stage.write(ctx)
    html = (ctx.telemetry / "report.html").read_text()
    assert "report of trial needs evaluate, which is not committed" in section(html, "score")
    assert "<svg" in section(html, "v-s-training")


def test_unexpected_content_costs_one_section_only(tmp_path):
    ctx = context(tmp_path, {**COMMITTED, "memory": {"heldout.json": "{}"}})
    stage.write(ctx)
    html = (ctx.telemetry / "report.html").read_text()
    assert "cannot be made" in section(html, "m-s-predictions")
    assert "805 ± 73" in html


def test_a_corrupt_artifact_stops_the_report(tmp_path):
    ctx = context(tmp_path, COMMITTED)
    stored = next(path for path in (tmp_path / "store").rglob("rewards.csv"))
    stored.chmod(0o644)
    stored.write_text(REWARDS.replace("400", "900"))
    with pytest.raises(CorruptArtifact, match="rewards"):
        stage.write(ctx)


def test_writing_twice_gives_the_same_pages(tmp_path):
    (tmp_path / "again").mkdir()
    ctx = context(tmp_path, COMMITTED)
    stage.write(ctx)
    first = (ctx.telemetry / "report.html").read_bytes()
    stage.write(ctx)
    assert (ctx.telemetry / "report.html").read_bytes() == first


HOSTILE = """</style></pre>"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}{% raw %}&amp;"""


class Parsed(HTMLParser):
    """Collects a page's tags and attributes, and the text between them."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes, self.text = Counter(), [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


def everything(text: str) -> list[page.Section]:
    """Return a section with one part of each kind, and `text` in each of their fields."""
    image = Picture("x.webp", b"", alt=text, caption=text, still=b"still")
    drawing = curves(Panel("p", "x", "y", text, text), [Line("V", [0, 1], [1, 2])])
    parts = [
        page.Paragraph(text), page.Paragraph(text, text), page.Code(text), page.Tiles([(text, text, text)]),
        page.Table([text], [[text]]), page.Figures([image, drawing]),
    ]  # fmt: skip
    assert {*map(type, parts), page.Details} == set(get_args(page.Part))
    return [page.Section(text, text, [*parts, page.Details(text, parts)])]


def test_text_is_text_in_every_part_of_the_page():
    plain, hostile = (Parsed(page.render(text, text, everything(text))) for text in ("plain", HOSTILE))
    assert hostile.tags == plain.tags
    assert Counter(name for name, _ in hostile.attributes) == Counter(name for name, _ in plain.attributes)
    assert hostile.text.count(HOSTILE) == plain.text.count("plain") > 20


def test_stored_text_is_text_on_the_page(tmp_path, monkeypatch):
    made = {"started": "then", "finished": "now", "seconds": 90.0}
    pages = []
    for name in ("plain", HOSTILE):
        monkeypatch.setattr(f"{__name__}.MADE", {
            **made, "git": name, "python": name, "versions": {name: name}, "cpu": {"model": name, "features": [name]},
        })  # fmt: skip
        (folder := tmp_path / str(len(pages))).mkdir()
        scores = json.dumps({**summary(TRACKS, ENV, "fast"), "gymnasium": name, "renderer": name})
        ctx = context(folder, {**COMMITTED, "evaluate": {"scores.json": scores}})
        stage.write(ctx)
        pages.append(Parsed((ctx.telemetry / "report.html").read_text()))
    plain, hostile = pages
    assert hostile.tags == plain.tags
    assert hostile.text.count(HOSTILE) >= 4 * len(COMMITTED)


def test_drawings_take_their_colours_from_the_page():
    picture = curves(Panel("p", "x", "y", "alt"), [Line("a", [0, 1, 2], [1, 2, 3]), Line("b", [0], [1], "orange")])
    html = page.render("t", "s", [page.Section("one", "", [page.Figures([picture])])])
    drawing = html[html.index("<svg") :]
    assert "var(--blue)" in drawing
    assert not any(light in drawing for light, _ in THEME.values())


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_keeps_its_contrast(scheme):
    def luminance(colour: str) -> float:
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for text in ("ink", "muted", "blue"):
        for ground in ("paper", "panel"):
            low, high = sorted(luminance(THEME[name][scheme]) for name in (text, ground))
            assert (high + 0.05) / (low + 0.05) >= 4.5


def test_empty_cells_are_not_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,\n2,3\n")
    assert np.isnan(table(tmp_path / "t.csv")["b"][0])


@pytest.mark.parametrize(("seconds", "words"), [(48.2, "48 s"), (200, "3 min 20 s"), (18120, "5 h 02 min")])
def test_durations_in_words(seconds, words):
    assert durations.words(seconds) == words


class FakeNetworks:
    """z is the first pixel's grey; M adds one to z at each step; the decoder paints z."""

    hidden = 4
    controller = None

    def __init__(self):
        self.actions = []
        self.step = self
        self.encoder = lambda frames: (frames[:, 0, 0, :1].astype(np.float32), None)
        self.decoder = lambda z: np.repeat(z.astype(np.uint8), 64 * 64 * 3, axis=1).reshape(-1, 64, 64, 3)

    def __call__(self, z, a, h, c):
        return h + 1, c

    def dream(self, z, a, h, c):
        self.actions.append((float(a[0, 0]), float(h[0, 0])))
        return h + 1, c, np.zeros((1, 1, 1)), (z + 1)[..., None], np.full((1, 1, 1), -50.0)


def test_a_dream_goes_on_from_a_real_start_on_its_own_z():
    frames = np.zeros((9, 64, 64, 3), np.uint8) + np.arange(9, dtype=np.uint8)[:, None, None, None] * 10
    actions = np.arange(9, dtype=np.float32)[:, None].repeat(3, axis=1)
    networks = FakeNetworks()
    episode = Episode(frames=frames, actions=actions, rewards=np.zeros(9, np.float32), track=0, terminated=False)
    dreamt = dream.roll_out(networks, episode, np.random.default_rng(0), warm_up=4, steps=3)
    assert dreamt[:, 0, 0, 0].tolist() == [40, 41, 42, 43]
    assert networks.actions == [(4.0, 4.0), (5.0, 5.0), (6.0, 6.0)]


def test_an_animation_has_all_frames_and_a_still_one():
    frames = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), np.uint8)
    picture = pictures.animation("dream.webp", frames, "alt", "caption", scale=2)
    assert Image.open(io.BytesIO(picture.data)).n_frames == 6
    assert Image.open(io.BytesIO(picture.still)).size == (128, 128)


def test_a_sheet_lays_out_rows():
    rows = [np.zeros((3, 64, 64, 3), np.uint8), np.zeros((2, 64, 64, 3), np.uint8)]
    assert Image.open(io.BytesIO(pictures.sheet(rows, scale=1))).size == (3 * 67 - 3, 2 * 67 - 3)
