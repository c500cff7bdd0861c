"""The pipeline itself, and all that knows of plates: replace this room for another pipeline."""
