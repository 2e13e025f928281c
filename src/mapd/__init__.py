"""The privileged side: a daemon that owns map file descriptors and serves them over gRPC."""
