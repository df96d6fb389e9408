"""M: what it is, how it is trained, and what it must beat."""
