"""The packaged function: deployed to a gateway, or served on this machine."""
