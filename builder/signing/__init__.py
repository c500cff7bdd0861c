"""Signatures: who vouches for an image, in the two forms that other tools read."""
