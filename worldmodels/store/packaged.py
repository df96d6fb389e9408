"""The store that the package brings: one trained run, with the files that its driving needs.

`python -m wm.pretrained` writes its folder. The manifests are those of the training, under another run's name, so they
still name the files that were left out.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import ConfigError, MissingInput
from .local import LocalStore

ADDRESS = "package:"
RUN = "pretrained"
FOLDER = Path(__file__).parents[1] / "packaged"
TRAIN = "wm run --preset demo --store ./runs"


class PackagedStore(LocalStore):
    """A store that can only be read. Its creation raises ConfigError if this installation has no such folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        if not (folder / RUN).is_dir():
            raise ConfigError("this installation has no trained model, as container images", next=TRAIN)
        super().__init__(folder)
        self.uri = ADDRESS

    @property
    def iteration(self) -> int:
        """Return the number of the iteration that was packed."""
        (folder,) = self.folders(f"{RUN}/")
        return int(folder.removeprefix("iter-"))

    def receive(self, key: str, sink: IO[bytes]) -> bool:
        """Do what a folder does; raise MissingInput for an artifact's file, since only unneeded ones are absent."""
        found = super().receive(key, sink)
        if not found and "/data/" in key:
            raise MissingInput(f"the package's trained model leaves out {key}: driving does not need it", next=TRAIN)
        return found

    def delete(self, key: str) -> None:
        self._refuse()

    @contextlib.contextmanager
    def _place(self, key: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        if make:
            self._refuse()
        with super()._place(key) as place:
            yield place

    def _refuse(self) -> None:
        raise ConfigError("the package's trained model can only be read", next=TRAIN)
