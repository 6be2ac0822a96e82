"""Data sets: generated ones and readers of a user's folders."""
