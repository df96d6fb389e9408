"""Sizes and counts as text."""


def size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def objects(count: float) -> str:
    return "1 object" if count == 1 else f"{count:.0f} objects"
