"""What a peer may send that no client of ours would: HTTP/2 that is wrong, endless, or half."""
