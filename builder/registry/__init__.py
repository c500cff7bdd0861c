"""The OCI distribution API: connections, a client, and images pushed, pulled and found by key."""
