"""The privileged side: a daemon that owns map file descriptors and serves them over gRPC."""

import os
import sys

TLS_1_3_ALONE = "grpc._cython.cygrpc" not in sys.modules
"""Whether handshakes of older TLS versions fail in this process, for gRPC is loaded after what follows."""

# gRPC for Python has no option for it. This is the list of suites for older versions, read when gRPC is loaded: one
# that needs a shared secret, which nobody sets, so that their handshakes fail (NO_SHARED_CIPHER). TLS 1.3's suites are
# not in it (BoringSSL, SSL_CTX_set_cipher_list).
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-AES128-CBC-SHA"

# What gRPC's core says on stderr is no JSON, and what strangers send makes it speak: a line for each bad header. Its
# errors that matter come as exceptions too. Who looks for a fault in gRPC itself sets this.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
