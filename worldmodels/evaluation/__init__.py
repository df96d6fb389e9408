"""The mean controller's score on tracks that training and selection never used."""

from .scoring import TrackScore, comparison, difference, score, summary

__all__ = ["TrackScore", "comparison", "difference", "score", "summary"]
