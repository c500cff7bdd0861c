"""Releases: publish them, fetch them, compare them, and walk back from an answer."""
