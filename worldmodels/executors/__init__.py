"""Executors of tasks: local processes (`local.py`) or Kubernetes Jobs (`submission.py`) that run `worker.py`."""
