"""What client and daemon both must know: the contract and its vocabulary.

No I/O, no Linux. ``v1`` is generated from proto/mapd_api/v1; the rest names the same things in
Python and is compared with the generated descriptors by tests/unit/mapd_api.
"""

__version__ = "0.1.0"
