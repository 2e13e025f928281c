"""Clients and daemons on a network that loses, delays, cuts and resets."""
