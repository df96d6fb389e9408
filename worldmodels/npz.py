"""Arrays by name as one file, for `numpy.load`: the same arrays give the same bytes on every Python.

`numpy.savez` writes the same content with other headers on Python 3.11.2 than on 3.11.7 (CPython issue 103861), so
that pods and laptops of unlike patch releases would not agree on a digest.
"""

import io
import zipfile
from typing import IO, Any

import numpy as np


def save(file: IO[bytes], **arrays: Any) -> None:
    """Write an .npz whose members carry no date, neither compressed nor pickled."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
