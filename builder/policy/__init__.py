"""What a site asks of images before they are compiled into a package, or run: read and judged."""
