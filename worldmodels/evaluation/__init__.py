"""How well C drives: the mean controller's score on tracks that nothing was trained or chosen on."""

from .scoring import TrackScore, score, summary

__all__ = ["TrackScore", "score", "summary"]
