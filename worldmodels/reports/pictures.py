"""Sheets and animations of frames: reconstructions, a dream, a drive."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from .figures import Picture

GAP = 3  # pixels between two pictures of a sheet, before they are enlarged
FRAME_MS = 40  # real time: every second one of CarRacing's 50 steps per second is shown


def sheet(rows: Sequence[np.ndarray], scale: int = 3) -> bytes:
    """Return a PNG of frames u8 [N, 64, 64, 3] per row, enlarged, with transparent gaps."""
    height, width = rows[0].shape[1:3]
    columns = max(len(row) for row in rows)
    size = (columns * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    canvas = Image.new("RGBA", size, (0, 0, 0, 0))
    for y, row in enumerate(rows):
        for x, frame in enumerate(row):
            canvas.paste(Image.fromarray(frame), (x * (width + GAP), y * (height + GAP)))
    return _png(canvas.resize((size[0] * scale, size[1] * scale), Image.Resampling.NEAREST))


def animation(name: str, frames: np.ndarray, alt: str, caption: str, scale: int = 5) -> Picture:
    """Return frames u8 [N, 64, 64, 3] as an animated WebP, enlarged, in an endless loop."""
    size = (frames.shape[2] * scale, frames.shape[1] * scale)
    images = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]
    out = io.BytesIO()
    images[0].save(
        out, format="WEBP", save_all=True, append_images=images[1:], duration=FRAME_MS, loop=0, quality=70, method=4
    )
    return Picture(name, out.getvalue(), alt, caption, still=_png(images[0]))


def animated(name: str, data: bytes, alt: str, caption: str) -> Picture:
    """Return an animated WebP unchanged, with its middle picture as the still one."""
    image = Image.open(io.BytesIO(data))
    image.seek(getattr(image, "n_frames", 1) // 2)
    return Picture(name, data, alt, caption, still=_png(image.convert("RGB")))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()
