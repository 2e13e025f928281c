"""What is counted of a running daemon (``counts``, ``syscalls``), and how it is told to Prometheus (all else).

``counts`` knows nothing of mapd and may be imported by every layer; the others are for who puts the daemon together.
"""
