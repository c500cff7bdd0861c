"""Questions about a workspace's images: why, from what, for whom, and are they the same again."""
