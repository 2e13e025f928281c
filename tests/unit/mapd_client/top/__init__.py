"""mapctl top, without a daemon."""
