"""mapctl without a daemon."""
