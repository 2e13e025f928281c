"""Every bound that both sides quote, in one place. Sizes in bytes, times in seconds."""

from __future__ import annotations

from typing import Final

MESSAGE_BYTES: Final = 4 << 20
"""One request or response: what gRPC libraries accept by default."""

COLUMN_BYTES: Final = MESSAGE_BYTES - (64 << 10)
"""All columns of one message; what is left is for everything around them."""

CHUNK_MIN_BYTES: Final = 64 << 10
CHUNK_MAX_BYTES: Final = 1 << 20
"""Columns of one dump or load message: 1 MiB reaches 1.45 GB/s, 64 KiB 0.85, and a stalled reader
costs the daemon one of them."""

BATCH_ELEMENTS: Final = 16_384
"""Elements of one group, and of one batch syscall: about 5 ms of kernel time."""

BATCH_MIN_ELEMENTS: Final = 256
"""Fewer per LOOKUP_BATCH cost more (275 ns an entry at 256, 268 at 65,536) and meet ENOSPC."""

GROUPS: Final = 1_024
"""Groups of one Apply."""

CONCURRENT_CALLS: Final = 1_024
"""Calls under way on one connection. grpc resets those beyond it (REFUSED_STREAM), and a client that had
2,000 in flight saw them fail; so clients keep below IN_FLIGHT and let the rest wait."""

IN_FLIGHT: Final = 128
"""Unary calls that one client has under way; more wait in the client. Rates stop rising at about 64."""

HANDLES: Final = 1_024
"""Open handles per principal."""

SESSIONS: Final = 64
"""Session streams per principal."""

GLOB_CHARACTERS: Final = 256
"""A pattern of names; a name has 127 at most. Matching takes time with the square of both."""

HANDLE_IDLE_S: Final = 300.0
"""A handle without a session is closed after so long without a call."""

DUMP_BYTES: Final = 16 << 20
"""Memory of all running dumps of one daemon together: chunks, and keys remembered to leave repeats out.
One dump that needs more gets it where no other runs."""

DUMP_RESERVE_BYTES: Final = 12 << 20
"""Of these, what no dump's chunks grow into: room for 48 that begin while the readers of others stall."""

DUMP_WAIT_S: Final = 1.0
"""A new dump waits so long for others to give back memory; then it is BUSY."""

DUMP_SILENCE_S: Final = 1.0
"""A dump that finds nothing for so long, for a prefix that few keys have, sends a chunk without elements."""

REDUCTIONS: Final = 64
"""Integers of a value that one dump reduces over all CPUs."""

REFUSAL_BYTES: Final = 2 << 10
"""A group's refusal inside an Apply answer at most; kept free for each group that is still to come."""

ERROR_DETAILS: Final = 16
"""Element errors of one answer that come with their errno."""

STALL_S: Final = 0.1
"""A dump whose reader blocks it this long falls back to one smallest chunk."""

STREAM_PROGRESS_S: Final = 30.0
"""A dump whose reader takes nothing for so long is ended, and a load whose client sends nothing."""

UNSENT_BYTES: Final = 64 << 20
"""Memory for answers of calls outside of sessions, of all clients of a daemon, that they have not taken. A call with a
large one waits UNSENT_WAIT_S for room; then it is BUSY."""
UNSENT_WAIT_S: Final = 5.0

REFUSAL_S: Final = 1.0
"""A stream that is ended before its end is reset when its reader has not taken why after so long."""

UNARY_S: Final = 60.0
"""Longest a unary call without a deadline of its own may take."""

LEASE_MIN_S: Final = 1.0
LEASE_MAX_S: Final = 86_400.0
"""Time to live of a lease. What is meant to stay longer has a name."""

LEASE_RETURN_S: Final = 5.0
"""At least so long every lease has when the daemon has just started or was stopped: clients connect again meanwhile,
which gRPC tries after up to a second."""

LEASES: Final = 1_024
"""Leases of one daemon. Each is a folder, which is looked at for 4 us whenever a map is opened by who has not all
rights."""

LEASE_MAPS: Final = 64
"""Maps of one lease."""

HOST_IDS: Final = 1_024
"""Devices, and cgroups, that one GetHostInfo names by id."""

SLOTS: Final = 8
"""Messages of one session in flight. While all are, what is asked for gathers and travels together."""

SESSION_REPLY_BYTES: Final = 256 << 10
"""Replies of one session that are kept for a retry, of messages that changed something; one that does not fit is
forgotten, and its retry is answered OUTCOME_UNKNOWN."""

SESSION_OUT_BYTES: Final = 4 << 20
"""Encoded answers of one session that its client has not taken, with the most that its messages under way may be
answered: while they are more, no further message is taken. The one that goes beyond is the last, so a session has
SESSION_OUT_BYTES + MESSAGE_BYTES of them at most (8 MiB), beside what grpc and the kernel buffer."""

HANDSHAKE_S: Final = 5.0
"""A connection whose client does not say what HTTP/2 begins with is closed after so long."""

CONNECTION_IDLE_S: Final = 600.0
"""A connection without a call is closed after so long; a client that comes back connects again by itself."""

PING_AFTER_S: Final = 60.0
"""A connection with a call that has sent nothing for so long is asked whether it is there; one that does not answer
in PING_S is closed."""
PING_S: Final = 20.0

SESSION_RESUME_S: Final = 5.0
"""A session whose stream broke is kept so long: its handles, its replies, what it has under way."""
