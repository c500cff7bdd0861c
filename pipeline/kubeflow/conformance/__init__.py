"""Whether a cluster does what this machine does: small packages, run here and there, compared."""
