"""What a manifest reaches, signatures included, moved whole: to a registry, or into one tar."""
