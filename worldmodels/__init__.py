"""World Models (Ha & Schmidhuber 2018) as containerised batch jobs. Read `stages.py` first."""

__version__ = "0.1.0"
