"""The presets, and the defaults of iteration 2 and later."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "rollouts": {"episodes": 128, "steps": 400},
        "vae": {"width": 0.5, "epochs": 2, "learning_rate": 1e-3},
        "memory": {"epochs": 15},
        "controller": {
            "steps": 600, "generations": 16, "evaluate_every": 3, "average": 3,
            "growth": [
                {"score": 300.0, "tracks": 3, "steps": 800, "sigma": 0.06},
                {"score": 600.0, "tracks": 4, "steps": 1000, "sigma": 0.04},
            ],
        },
    },
    "laptop": {
        "iterations": 2,
        "rollouts": {"episodes": 400, "steps": 500},
        "vae": {"width": 0.5, "epochs": 3, "learning_rate": 1e-3},
        "memory": {"epochs": 12},
        "controller": {
            "tracks": 4, "components": 96, "sigma": 0.45, "generations": 80,
            "evaluate_every": 5, "evaluate_tracks": 24, "average": 10, "select": "best",
        },
    },
    "paper": {
        "rollouts": {"episodes": 10_000, "steps": 1000, "shard_episodes": 10},
        "vae": {"epochs": 10},
        "memory": {"epochs": 20, "batch": 100, "sequence": 1000, "decay": 1.0},
        "controller": {
            "population": 64, "tracks": 16, "generations": 1800, "patience": 0,
            "evaluate_every": 25, "evaluate_tracks": 1000,
        },
    },
}  # fmt: skip

ITERATION_TWO = {
    "rollouts": {"controller": "mean", "source": ""},
    "vae": {"warm_start": True},
    "controller": {"warm_start": True},
}
"""Defaults of iteration 2 and later: the controller drives; V and C start from their previous weights."""

LATER_ITERATIONS: dict[str, dict[str, Any]] = {
    "laptop": {
        "rollouts": {"episodes": 64, "steps": 1000},
        "vae": {"epochs": 0},
        "memory": {"epochs": 0, "warm_start": True},
        "controller": {
            "components": 32,
            "sigma": 0.3,
            "generations": 150,
            "evaluate_every": 15,
            "evaluate_tracks": 320,
            "hard_tracks": 2,
            "patience": 200,
        },
    },
}
"""Changes of a preset in iteration 2 and later, beside those of every run."""
