"""Looking after a store: is it fit (`doctor.py`), what can go (`garbage.py`), and a run elsewhere (`copying.py`)."""
