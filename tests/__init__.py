"""Tests: unit mirrors src; suite, kernel and e2e run on what they say; repo checks the repository itself."""
