"""``mapd doctor``: what this host and the present rights permit, and what would mend each refusal.

Changes nothing: no folder is made, and the maps of the trials are closed at once. Standard library and
our own layers alone.
"""
