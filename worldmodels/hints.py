"""Completion of the commands that errors recommend, so that they act on the same run, store and settings.

Code that raises an error recommends a short command: `wm logs controller`. The command that prints the error knows the
run, the store, the iteration and the settings, and adds those that the recommended command takes and lacks.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

RUN, STORE, ITERATION, PRESET, CONFIG, OVERRIDE, WORKERS, ITERATIONS = (
    "--run", "--store", "--iteration", "--preset", "--config", "-o", "--workers", "--iterations",
)  # fmt: skip
TAKES: Mapping[str, Sequence[str]] = {
    "run": (PRESET, CONFIG, OVERRIDE, RUN, STORE, ITERATION, WORKERS),
    "sweep": (PRESET, CONFIG, OVERRIDE, RUN, STORE, ITERATION, WORKERS),
    "study": (PRESET, CONFIG, OVERRIDE, RUN, STORE, WORKERS),
    "submit": (PRESET, CONFIG, OVERRIDE, RUN, STORE, ITERATION, ITERATIONS),
    "render": (PRESET, CONFIG, OVERRIDE, RUN, STORE, ITERATION, ITERATIONS),
    "config": (PRESET, RUN, STORE, ITERATION),
    "attach": (CONFIG, OVERRIDE, RUN, STORE, ITERATION),
    "scale": (CONFIG, OVERRIDE, RUN, STORE, ITERATION),
    "cancel": (CONFIG, OVERRIDE, RUN, STORE, ITERATION),
    "logs": (CONFIG, OVERRIDE, RUN, STORE, ITERATION),
    "status": (CONFIG, OVERRIDE, STORE),
    "board": (CONFIG, OVERRIDE, STORE),
    "track": (STORE,),
    "doctor": (CONFIG, OVERRIDE, STORE),
    "show": (RUN, STORE, ITERATION),
    "diff": (STORE,),
    "drive": (STORE, ITERATION),
    "evaluate": (RUN, STORE, ITERATION, WORKERS),
    "get": (RUN, STORE, ITERATION),
    "export": (STORE, ITERATION),
    "import": (PRESET, CONFIG, OVERRIDE, RUN, STORE),
    "ls": (STORE,),
    "verify": (STORE,),
    "gc": (STORE,),
}
"""The options that select what a command acts on; `wm config` takes no settings, since errors in them recommend it."""
WHOLE = ("run", "sweep", "study", "submit", "render", "import")
"""Commands that resolve all settings; the others need only those where to compute."""

Given = Mapping[str, Sequence[str]]
"""The values of each option: any number for `--config` and `-o`, at most one for the others."""


def complete(hint: str, given: Given, *, personal: Iterable[str] = ("kubernetes",)) -> str:
    """Return the hint with the given options added to each `wm` command in it. Options that it has stay.

    >>> complete("wm logs vae, or wm ls", {"--run": ["night"], "--store": ["s3://b/p"]})
    'wm logs vae --run night --store s3://b/p, or wm ls --store s3://b/p'
    """
    parts = re.split(r"(, or |, then | \| | > |; )", hint)
    return "".join(_command(part, given, tuple(personal)) if part.startswith("wm ") else part for part in parts)


def _command(text: str, given: Given, personal: tuple[str, ...]) -> str:
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    verb = words[1]
    own = {word.partition("=")[0] for word in words if word.startswith("-")}
    settings = {words[i + 1].partition("=")[0] for i, word in enumerate(words[:-1]) if word == OVERRIDE}
    before: list[str] = []
    after: list[str] = []
    for option in TAKES.get(verb, ()):
        for value in given.get(option, ()):
            if option == OVERRIDE:
                key = value.partition("=")[0].strip()
                if key not in settings and (verb in WHOLE or key.partition(".")[0] in personal):
                    before += [option, value]
            elif option == CONFIG:
                before += [option, value] if value not in words else []
            elif option not in own and (option != ITERATIONS or "pipeline" in words):
                after += [option, value]
    place = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    added = shlex.join(before), shlex.join(after)
    begin, end = (" ".join(map(_quote, part)) for part in (words[:place], words[place:]))
    return " ".join(part for part in (begin, added[0], end, added[1]) if part)


def _quote(word: str) -> str:
    """Quote a word for a shell, but keep an ellipsis, which stands for a value that the user fills in."""
    return word if "…" in word else shlex.quote(word)
