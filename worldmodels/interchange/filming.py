"""A drive as a film, for `wm drive`: the track, and C's view of it through V and M."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..api import Run, Which
from ..envs import spec
from ..errors import lacking
from .drives import Drive, View

EVERY = 2  # steps per picture: 25 pictures a second
WIDTH = 480
PANEL, STRIP = WIDTH // 3, 44
QUALITY = 55
NAMES = ("what C sees", "V's reconstruction", "M's prediction")
INK, PAPER, BAR = (230, 232, 235), (24, 27, 31), (110, 168, 254)

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]


def drive(run: Run, which: Which, track: int, steps: int = 1000) -> Iterator[View]:
    """Yield each step of a drive on the track; its score is that of `wm evaluate` with the fast renderer.

    Each EVERY-th step has a picture. M's prediction is the expected frame, from the step before. Raise MissingInput if
    a network or C is not committed.
    """
    with contextlib.closing(Drive(run, which, track)) as going:
        while going.steps < steps and not going.ended:
            yield going.step(picture=going.steps % EVERY == 0)


def film(
    views: Iterator[View], title: str, per_second: int, path: Path, on_step: Callable[[View], None] = lambda view: None
) -> None:
    """Write a film of the drive in real time: an animated WebP or an mp4, as the path's suffix says."""
    FORMATS[path.suffix](_pictures(views, title, on_step), per_second / EVERY, path)


def check(path: Path) -> None:
    """Raise ConfigError if the package that writes such a film is not installed."""
    try:
        if path.suffix == ".mp4":
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:  # no package, or no ffmpeg for this platform in it
        raise lacking(f"{path}: mp4", "imageio_ffmpeg") from error


def _webp(pictures: Iterator[Image.Image], rate: float, path: Path) -> None:
    first, *others = pictures
    first.save(
        path,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=round(1000 / rate),
        loop=0,
        quality=QUALITY,
        method=2,
    )


def _mp4(pictures: Iterator[Image.Image], rate: float, path: Path) -> None:
    """Write H.264 with yuv420p, which browsers play, and the index first, so that they begin before the end."""
    import imageio_ffmpeg

    first = next(pictures)
    frames = imageio_ffmpeg.write_frames(
        path, first.size, fps=rate, codec="libx264", pix_fmt_out="yuv420p", macro_block_size=2, quality=None,
        output_params=["-crf", "23", "-movflags", "+faststart"],
    )  # fmt: skip
    frames.send(None)
    try:
        for picture in itertools.chain([first], pictures):
            frames.send(picture.tobytes())
    except OSError as error:
        raise OSError("ffmpeg, which writes it, has ended; its message is above") from error
    finally:
        frames.close()


FORMATS = {".webp": _webp, ".mp4": _mp4}
"""How films are written, by suffix."""


def _pictures(views: Iterator[View], title: str, on_step: Callable[[View], None]) -> Iterator[Image.Image]:
    for view in views:
        on_step(view)
        if view.picture is not None:
            yield _compose(view, view.picture, title)


def steps_per_second(run: Run) -> int:
    return spec(run.artifact("controller").env).steps_per_second


def _compose(view: View, picture: Frames, title: str) -> Image.Image:
    """Return the picture above, the three frames below it, then score and controls."""
    height = WIDTH * picture.shape[0] // picture.shape[1]
    canvas = Image.new("RGB", (WIDTH, height + PANEL + STRIP), PAPER)
    canvas.paste(Image.fromarray(picture).resize((WIDTH, height), Image.Resampling.BILINEAR))
    pen = ImageDraw.Draw(canvas)
    for place, (name, frame) in enumerate(zip(NAMES, (view.frame, view.reconstruction, view.prediction), strict=True)):
        shown = Image.fromarray(frame).resize((PANEL, PANEL), Image.Resampling.BICUBIC)
        canvas.paste(shown, (place * PANEL, height))
        pen.rectangle((place * PANEL, height, place * PANEL + 6 * len(name) + 8, height + 14), fill=PAPER)
        pen.text((place * PANEL + 4, height + 2), name, fill=INK)
    top = height + PANEL
    pen.text((8, top + 5), f"{title}   step {view.step}   score {view.score:.1f}", fill=INK)
    _controls(pen, view.action, top + 24)
    return canvas


def _controls(pen: ImageDraw.ImageDraw, action: Floats, top: int) -> None:
    """Draw the first three actions as bars: steering from its middle, gas and brake from the left."""
    for place, (name, low) in enumerate((("steering", -1.0), ("gas", 0.0), ("brake", 0.0))[: len(action)]):
        left, width = 8 + place * PANEL, PANEL - 80
        pen.text((left, top), name, fill=INK)
        first, last = left + 56, left + 56 + width
        pen.rectangle((first, top + 2, last, top + 10), outline=INK)
        zero = first + width * -low / (1 - low)
        value = zero + (float(action[place]) * width / (1 - low))
        pen.rectangle((min(zero, value), top + 3, max(zero, value), top + 9), fill=BAR)
