"""TensorBoard's event files, `FOLDER/<run>/iter-<n>/events.out.tfevents.<time>.wm`, one for each iteration.

The file itself tells which points it has, so a follower can stop at any time and start again. It uses tensorboard's
messages and record format, without the parts that import TensorFlow.
"""

import fcntl
import io
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from ..errors import Busy
from .following import Curve, Picture, missing

PATTERN = "events.out.tfevents.*.wm"
VERSION = "brain.Event:2"


class EventFiles:
    """Writes pictures to event files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, EventFile] = {}

    def write(self, picture: Picture) -> int:
        folder = self._folder / picture.run / f"iter-{picture.iteration}"
        file = self._files.get(picture.name) or EventFile.open(folder)
        more = missing(file.curves, picture.curves)
        if more is None or file.settings not in ({}, picture.settings):
            file = file.replaced()
            more = dict(picture.curves)
        self._files[picture.name] = file
        if not file.settings:
            file.begin(picture)
        return file.append(more)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class EventFile:
    """One event file, held by a lock: its settings and its curves are what it contains."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, and cut a last record that a killed process left incomplete."""
        self._path = path
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise Busy(f"{path}: another `wm track` writes this file", next="wm track --once") from None
        self.settings: dict[str, Any] = {}
        self.curves: dict[str, Curve] = {}
        self._file.seek(0)
        events, end = _events(self._file.read())
        for event in events:
            for value in event.summary.value:
                self._take(event.step, value)
        self._file.truncate(end)

    @classmethod
    def open(cls, folder: Path) -> "EventFile":
        """Return the folder's newest event file, or a new one."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(max(folder.glob(PATTERN), default=_path(folder, time.time())))

    def replaced(self) -> "EventFile":
        """Remove the file, and return a new one in its place, with a later name: TensorBoard reads on there."""
        before = int(self._path.name.split(".")[3])
        new = EventFile(_path(self._path.parent, max(time.time(), before + 1)))
        self._path.unlink()
        self.close()
        return new

    def begin(self, picture: Picture) -> None:
        """Write the first records: the format's version, and the settings as hyperparameters."""
        self.settings = dict(picture.settings)
        start = SessionStartInfo(group_name=picture.name, start_time_secs=time.time())
        for key, value in picture.settings.items():
            if isinstance(value, bool):
                start.hparams[key].bool_value = value
            elif isinstance(value, str):
                start.hparams[key].string_value = value
            else:
                start.hparams[key].number_value = value
        data = metadata.create_summary_metadata(HParamsPluginData(session_start_info=start))
        value = Summary.Value(tag=metadata.SESSION_START_INFO_TAG, metadata=data, tensor=metadata.NULL_TENSOR)
        now = time.time()
        self._append(Event(wall_time=now, file_version=VERSION), Event(wall_time=now, summary=Summary(value=[value])))

    def append(self, curves: Mapping[str, Curve]) -> int:
        """Write the points, in the order of their steps, and return their number."""
        points = sorted((step, name, value) for name, curve in curves.items() for step, value in curve.items())
        now = time.time()
        for step, name, value in points:
            self.curves.setdefault(name, {})[step] = value
        self._append(*(
            Event(wall_time=now, step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))
            for step, name, value in points
        ))  # fmt: skip
        return len(points)

    def close(self) -> None:
        self._file.close()

    def _append(self, *events: Event) -> None:
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        for event in events:
            writer.write(event.SerializeToString())
        left = memoryview(buffer.getvalue())
        while left:
            left = left[self._file.write(left) :]

    def _take(self, step: int, value: Any) -> None:
        """Note a record that is in the file."""
        if value.WhichOneof("value") == "simple_value":
            self.curves.setdefault(value.tag, {})[step] = value.simple_value
        elif value.tag == metadata.SESSION_START_INFO_TAG:
            start = metadata.parse_session_start_info_plugin_data(value.metadata.plugin_data.content)
            self.settings = {key: _plain(each) for key, each in start.hparams.items()}


def _plain(value: Any) -> bool | float | str:
    kind = value.WhichOneof("kind")
    found: bool | float | str = getattr(value, kind)
    return found


def _path(folder: Path, seconds: float) -> Path:
    return folder / f"events.out.tfevents.{int(seconds):010d}.wm"


def _events(data: bytes) -> tuple[list[Event], int]:
    """Return the records of an event file, and where they end: before one that is incomplete or damaged."""
    found: list[Event] = []
    begin = 0
    while len(data) >= begin + 12:
        length, checked = struct.unpack_from("<QI", data, begin)
        end = begin + 16 + length
        if masked_crc32c(data[begin : begin + 8]) != checked or end > len(data):
            break
        record = data[begin + 12 : end - 4]
        if masked_crc32c(record) != struct.unpack_from("<I", data, end - 4)[0]:
            break
        found.append(Event.FromString(record))
        begin = end
    return found, begin
