"""Driving episodes, and storing them."""
