"""The locks against advisories, and how old each pin is."""
