"""Stage `report`: one self-contained HTML page, and its pictures as files. All of it is telemetry."""

from collections.abc import Callable
from dataclasses import dataclass

from ..context import Context
from ..errors import MissingInput, WmError
from . import learning, lineage, page, results
from .page import Figures, Paragraph, Part, Section


@dataclass(frozen=True)
class Chapter:
    """A section of the report: its title, a hint for readers, and the function that makes its body."""

    title: str
    look: str
    build: Callable[[Context], list[Part]]


CHAPTERS = (
    Chapter(
        "Score",
        "Look at the interval first: two runs whose intervals overlap widely are not told apart by these tracks.",
        results.headline,
    ),
    Chapter("A drive", "Look for tiles cut at corners: each one missed costs the lap's completion.", results.drive),
    Chapter(
        "Scores over tracks",
        "Look at the left end: a mean is pulled down by the few tracks on which the car was lost.",
        results.scores,
    ),
    Chapter(
        "Evolution of the controller",
        "Look at the orange points, the mean on fixed tracks: while they rise, more generations pay.",
        results.evolution,
    ),
    Chapter(
        "V's reconstructions",
        "Look for the road's edges, and for curves ahead of the car: what is lost here, nothing later can know.",
        learning.reconstructions,
    ),
    Chapter(
        "V's training", "Look for curves that have flattened; a slope at the end asks for more epochs.", learning.vision
    ),
    Chapter(
        "M's predictions",
        "Look for M's bar ending well left of both others: a memory that beats neither adds nothing.",
        learning.memory,
    ),
    Chapter(
        "A dream",
        "Look for a road that stays a road and turns as the car steers; blur that grows is drift.",
        learning.dream,
    ),
    Chapter("Lineage", "Look here to repeat it: the same config and code give the same digests.", lineage.lineage),
)


def write(ctx: Context) -> None:
    """Write report.html and its pictures to telemetry. A sentence replaces each part that is not committed yet."""
    sections = []
    for i, chapter in enumerate(CHAPTERS):
        ctx.progress(i, len(CHAPTERS), "sections", 0.0)
        sections.append(Section(chapter.title, chapter.look, _body(chapter, ctx)))
    pictures = [picture for s in sections for part in s.body if isinstance(part, Figures) for picture in part.pictures]
    for picture in pictures:
        (ctx.telemetry / picture.name).write_bytes(picture.data)
    html = page.render(
        f"{ctx.run}: World Models on CarRacing", f"Iteration {ctx.iteration}, seed {ctx.config.seed}", sections
    )
    (ctx.telemetry / "report.html").write_text(html, encoding="utf-8")
    for path in sorted(ctx.telemetry.iterdir()):
        ctx.publish(path.name, now=True)
    ctx.progress(len(CHAPTERS), len(CHAPTERS), "sections", 0.0)


def _body(chapter: Chapter, ctx: Context) -> list[Part]:
    """Return the chapter's body, or a sentence why it is missing. Raise WmError for a corrupt artifact."""
    try:
        return chapter.build(ctx)
    except MissingInput as missing:
        return [Paragraph(f"Not here yet: {missing}.", "missing")]
    except WmError:
        raise
    except Exception as error:  # a committed file may have any content
        ctx.log.warning("report section %r cannot be made", chapter.title, exc_info=True)
        why = f"{type(error).__name__}: {error}"
        return [Paragraph(f"This part cannot be made of what is committed ({why}).", "missing")]
