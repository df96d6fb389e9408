"""`wm` as tests call it: in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

TINY = """
[rollouts]
episodes = 8
steps = 40
shard_episodes = 4

[vae]
z = 8
width = 0.125
epochs = 1
batch = 40

[memory]
hidden = 16
mixtures = 2
epochs = 2
batch = 4
sequence = 20
held_out = 0.25

[controller]
population = 4
tracks = 1
steps = 40
patience = 0
generations = 3
evaluate_every = 2
evaluate_tracks = 1

[evaluate]
tracks = 4
shard_tracks = 2
steps = 40
reference_tracks = 1
"""
"""Settings of a run that takes seconds."""


@dataclass
class Wm:
    """`wm` as a user calls it, on a store of its own and a config that takes seconds."""

    store: Path
    toml: Path
    more: dict[str, str] = field(default_factory=dict)
    stdout: str = ""

    def environment(self) -> dict[str, str]:
        return os.environ | {"WM_STORE": str(self.store), "WM_RUN": "tiny", "WM_CONFIG": ""} | self.more

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "wm", *arguments]
        pipe = subprocess.PIPE
        heeds_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell starts with & ignores it
        return subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=self.environment(), preexec_fn=heeds_ctrl_c
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self("run", *arguments, "--config", str(self.toml))

    def ok(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def digests(self) -> dict[str, str]:
        """Artifact digests, without the report (it has no results)."""
        rows = json.loads(self("ls", "tiny", "--json").stdout)["artifacts"]
        return {row["artifact"] + row["extent"]: row["digest"] for row in rows}
