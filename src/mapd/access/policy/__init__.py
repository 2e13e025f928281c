"""The policy: one TOML file that says who may do what, and the decisions that follow from it.

``file`` reads it, ``model`` is what it says, ``decide`` applies it, ``explain`` puts decisions into words,
``holder`` keeps the last good one while the daemon runs, ``check`` and ``edit`` are for the command line.
Only ``holder``, ``hosts`` and ``edit`` touch the host; all else is pure.
"""
