"""C: a linear controller found by CMA-ES. `evolution.py` searches, `exchange.py` shares the work."""
