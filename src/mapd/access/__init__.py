"""Who may do what: pure decisions, no I/O. Yields ``Authorized``, and the runtime takes nothing else."""
