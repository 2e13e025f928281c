"""What a map has beside what it should have: the difference, and the writes that mend it."""
