"""Upkeep of a store: checks (`doctor.py`), garbage (`garbage.py`), copies (`copying.py`), damage (`verifying.py`)."""
