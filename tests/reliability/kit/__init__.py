"""What figures about faults share.

``history`` records what clients did, ``model`` says what a map may answer, ``checker`` compares the two; ``load`` is
the clients' program and its other end, ``entry`` a daemon that can be made to fail, and ``nemesis`` what kills it.
"""
