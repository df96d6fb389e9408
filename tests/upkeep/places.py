"""Small stores to look after, and a client of a server that is not quite S3."""

import buckets

from worldmodels import artifacts
from worldmodels.artifacts import Name, publishing
from worldmodels.config import resolve

VAE, ROLLOUTS, CONTROLLER = (Name("run", 1, stage) for stage in ("vae", "rollouts", "controller"))
WORK, PREFIX = "0123456789abcdef", buckets.fresh_prefix()


class Careless:
    """A client of a server that overlooks conditions; `pages` are arguments by operation, to be told little at once."""

    def __init__(self, client, *overlooked, **pages):
        self.meta, self.calls, self._client, self._overlooked, self._pages = client.meta, [], client, overlooked, pages

    def __getattr__(self, name):
        def call(**arguments):
            self.calls.append(name)
            kept = {key: value for key, value in arguments.items() if key not in self._overlooked}
            return getattr(self._client, name)(**kept, **self._pages.get(name, {}))

        return call


def commit(store, tmp_path, name=VAE, attempt="first", content=b"weights", override="seed=1"):
    """Commit a small artifact; returns its manifest."""
    here = tmp_path / attempt
    here.mkdir(exist_ok=True)
    (here / "weights").write_bytes(content)
    work = artifacts.identity(name, resolve("demo", (), (override,))[0], (name.stage,), {})
    files, made = publishing.upload(store, name, attempt, here), {"finished": "now", "seconds": 1.0}
    return publishing.commit(store, work, files=files, telemetry={}, shards=[], resolved={}, made=made)


def commit_shards(store, count=2, attempt="shards"):
    work = artifacts.identity(ROLLOUTS, resolve("demo", (), ())[0], ("rollouts",), {})
    for i in range(count):
        publishing.commit_shard(store, work, i, attempt, {"frames": b"frames of %d" % i})
    return work


def keys(store, prefix=""):
    return [entry.key for entry in store.entries(prefix)]
