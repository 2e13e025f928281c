"""Maps that an eBPF object file declares: what it says, and their creation through a daemon."""
