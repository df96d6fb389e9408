"""Where tasks run: as processes of this machine (`local.py`). `worker.py` is what every such process executes."""
