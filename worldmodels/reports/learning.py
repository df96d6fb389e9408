"""The report's sections on V's reconstructions and M's predictions."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from .. import npz
from ..context import Artifact, Context
from ..envs import spec
from ..networks import Decoder, Dream, Encoder, Step, build
from ..rollouts import episodes
from ..rollouts.episodes import Episode
from .dream import Networks, roll_out
from .figures import Line, Panel, Picture, bars, curves
from .page import Figures, Paragraph, Part
from .pictures import animation, sheet
from .sources import Columns, document, optional, table

COLUMNS = 5  # frames side by side: each is a thumbnail on a phone
WARM_UP = 40  # real steps before the dream; the car is moving by then
DREAM_STEPS = 400
DREAM_SEED = 7  # used with the run's seed, so that the dream has noise of its own


def reconstructions(ctx: Context) -> list[Part]:
    """Show stored frames beside V's reconstructions of them."""
    vae = ctx.one("vae")
    if not ctx.inputs.get("rollouts"):
        return _committed_reconstructions(ctx)
    encoder, decoder = Encoder(vae.path("encoder.tflite")), Decoder(vae.path("decoder.tflite"))
    frames = _spread(_last_episodes(ctx), 2 * COLUMNS)
    drawn = decoder(encoder(frames)[0])
    error = float(np.mean(np.abs(frames.astype(float) - drawn)))
    top, bottom = slice(0, COLUMNS), slice(COLUMNS, None)
    data = sheet([part for s in (top, bottom) for part in (frames[s], drawn[s]) if len(part)])
    picture = Picture(
        "reconstructions.png", data,
        f"{len(frames)} frames of stored episodes, each with V's reconstruction below it.",
        f"Rows 1 and 3: what the car saw. Rows 2 and 4: what V drew from {encoder.z} numbers. "
        f"They differ by {error:.1f} of 255 grey levels on average.",
        wide=True,
    )  # fmt: skip
    return [Figures([picture])]


def vision(ctx: Context) -> list[Part]:
    """Show V's training curves."""
    rows, config = table(ctx.one("vae").path("training.csv")), ctx.config.vae
    free = config.kl_tolerance * config.z
    error = _training_panel(
        rows, "squared_error", "squared error per frame", "Summed over pixels and channels, scaled 0 to 1."
    )
    kl = _training_panel(
        rows, "kl", "KL divergence per frame (nats)",
        f"From the unit Gaussian. The first {free:g} nats cost nothing, so it settles near there.",
        {f"free below {free:g} nats": free},
    )  # fmt: skip
    lines = (error, "squared_error", "blue"), (kl, "kl", "orange")
    return [Figures([curves(panel, [Line("V", rows["step"], rows[name], hue)]) for panel, name, hue in lines])]


def _training_panel(
    rows: Columns, column: str, title: str, caption: str, levels: Mapping[str, float] = MappingProxyType({})
) -> Panel:
    values = rows[column]
    alt = f"{title} over {rows['step'][-1]:.0f} training steps, from {values[0]:.3g} to {values[-1]:.3g}."
    return Panel(f"vae-{column.replace('_', '-')}", "training step", title, alt, caption, levels)


def memory(ctx: Context) -> list[Part]:
    """Show M's held-out likelihood beside two trivial models, and its training curve."""
    artifact = ctx.one("memory")
    nll = document(artifact.path("heldout.json"))
    named = {
        "M (MDN-RNN)": nll["mdn_rnn"],
        "“z does not change”": nll["unchanged"],
        "one Gaussian for every frame": nll["gaussian"],
    }
    gain = min(nll["unchanged"], nll["gaussian"]) - nll["mdn_rnn"]
    verdict = (
        f"M is {gain:.1f} nats per frame better than the better of the two."
        if gain > 0
        else f"M is {-gain:.1f} nats per frame worse than the better of the two: it has not learned to predict."
    )
    kept = _kept(ctx, artifact)
    bar = Panel(
        "memory-heldout", "negative log-likelihood (nats per frame; lower is better)", "",
        "Held-out negative log-likelihood: " + ", ".join(f"{k} {v:.1f}" for k, v in named.items()) + " nats per frame.",
        f"On {nll['frames']:,} frames of episodes kept out of training. {verdict} {kept}".strip(),
    )  # fmt: skip
    pictures = [bars(bar, named, ("blue", "muted", "muted"))]
    if ctx.config.memory.epochs and (path := optional(artifact, "training.csv")):
        pictures.append(_memory_curve(table(path)))
    return [Figures(pictures)]


def _kept(ctx: Context, memory: Artifact) -> str:
    """Return a sentence with the epoch of M's weights; empty for artifacts that do not record it."""
    if not ctx.config.memory.epochs:
        return "M was not trained, because memory.epochs is 0."
    path = optional(memory, "memory.json")
    epoch = document(path).get("epoch") if path else None
    return f"M is that of epoch {epoch} of {ctx.config.memory.epochs}, where this was lowest." if epoch else ""


def dream(ctx: Context) -> list[Part]:
    """Show M rolled out on its own predictions, as an animation and a filmstrip."""
    vae, model = ctx.one("vae"), ctx.one("memory")
    controllers = ctx.inputs.get("controller", ())
    encoder, step = Encoder(vae.path("encoder.tflite")), Step(model.path("step.tflite"))
    mean = None
    if controllers:
        c = controllers[-1]
        mean = build(spec(c.env), c.architecture, encoder.z, step.hidden), npz.read(c.path("mean.npy"))
    networks = Networks(encoder, Decoder(vae.path("decoder.tflite")), step, Dream(model.path("dream.tflite")), mean)
    ctx.one("rollouts")
    episode = max(_last_episodes(ctx), key=lambda e: len(e.frames))
    rng = np.random.default_rng([ctx.config.seed, DREAM_SEED])
    frames = roll_out(networks, episode, rng, warm_up=WARM_UP, steps=DREAM_STEPS)
    who = "the trained controller" if controllers else "the recorded actions, repeated (no controller is committed),"
    every = DREAM_STEPS // (2 * COLUMNS)
    strip = frames[::every][: 2 * COLUMNS]
    caption = f"From a real frame, as V draws it, M dreams on and {who} steers. Eight seconds, in real time."
    still = Picture(
        "dream.png", sheet([strip[:COLUMNS], strip[COLUMNS:]]),
        f"{len(strip)} frames of the dream in reading order, {every} steps apart.",
        f"The same dream, every {every} steps ({every / 50:.1f} s), in reading order.",
    )  # fmt: skip
    return [
        Figures(
            [animation("dream.webp", frames[::2], "Animation: M's dream of a drive, decoded by V.", caption), still]
        )
    ]


def _memory_curve(rows: Columns) -> Picture:
    x, y = rows["step"], rows["loss"]
    alt = f"Training negative log-likelihood over {x[-1]:.0f} steps, from {y[0]:.1f} to {y[-1]:.1f} nats per frame."
    text = (
        "The same negative log-likelihood (NLL): of training sequences, and after every epoch of held-out episodes. A "
        "gap that widens is overfitting."
    )
    panel = Panel("memory-training", "training step", "NLL (nats per frame)", alt, text)
    return curves(panel, [Line("training", x, y), Line("held out", x, rows["held_out"], "orange", points=True)])


def _committed_reconstructions(ctx: Context) -> list[Part]:
    path = optional(ctx.one("vae"), "reconstructions.png")
    if path is None:
        return [Paragraph("Neither episodes nor stored reconstructions are there.", "missing")]
    alt = "Frames and V's reconstructions, as they were when training ended."
    return [Figures([Picture("reconstructions.png", path.read_bytes(), alt, alt, wide=True)])]


def _last_episodes(ctx: Context) -> list[Episode]:
    return episodes.read(ctx.one("rollouts").shards[-1], spec(ctx.config.env).actions)


def _spread(found: list[Episode], n: int) -> np.ndarray:
    """Return `n` frames u8 [n, 64, 64, 3] from all over the episodes.

    The first 60 frames of long episodes are left out, because the camera zooms in.
    """
    chosen = []
    for i in range(n):
        frames = found[i * len(found) // n].frames
        chosen.append(frames[min(len(frames) - 1, 60 + int((len(frames) - 60) * (i + 0.5) / n))])
    return np.stack(chosen)
