import io
import zipfile

import numpy as np

from worldmodels import npz

ARRAYS = {"actions": np.arange(6, dtype=np.float32).reshape(2, 3), "done": np.array([True, False]), "n": 3}


def saved():
    file = io.BytesIO()
    npz.save(file, **ARRAYS)
    return file.getvalue()


def test_numpy_reads_it_back():
    with np.load(io.BytesIO(saved())) as read:
        assert all(np.array_equal(read[name], array) for name, array in ARRAYS.items())
        assert read["actions"].dtype == np.float32


def test_its_headers_are_those_that_every_python_writes():
    members = zipfile.ZipFile(io.BytesIO(saved())).infolist()
    headers = {(m.date_time[0], m.extract_version, m.create_version, m.flag_bits, m.extra) for m in members}
    assert headers == {(1980, 20, 20, 0, b"")}
    assert b"\xff\xff\xff\xff" not in saved(), "sizes as zip64 writes them"
