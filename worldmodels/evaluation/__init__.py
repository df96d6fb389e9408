"""How well C drives: the mean controller's score on tracks that nothing was trained or chosen on."""

from .scoring import TrackScore, comparison, score, summary

__all__ = ["TrackScore", "comparison", "score", "summary"]
