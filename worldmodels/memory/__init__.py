"""M: its model, its training, and its baselines."""
