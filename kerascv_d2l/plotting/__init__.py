"""Drawings: the book's functions for a notebook, and those the scripts write to files.

The files are drawn without pyplot, so that no window system and no global
figure is touched. Nothing here needs TensorFlow; tensors are taken as they come.
"""
