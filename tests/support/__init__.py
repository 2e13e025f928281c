"""What several test packages share: a private bpffs, and counts of what must not be left behind."""
