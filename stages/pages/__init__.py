"""What all reports share: one HTML file without outside assets, its style, charts and numbers."""
