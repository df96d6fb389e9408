"""One HTML page about a run, made from its committed artifacts alone."""
