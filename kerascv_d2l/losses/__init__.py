"""Losses: of detectors, and of networks with a class for every pixel."""
