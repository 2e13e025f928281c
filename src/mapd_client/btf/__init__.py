"""BTF, the kernel's type information (Documentation/bpf/btf.rst): what a map's bytes mean. Sans-I/O.

``Types(blob).layout(id)`` is what typed maps are made of; ``types[id]`` is a type as the blob has it.
"""

from mapd_client.btf.blob import BadBtf
from mapd_client.btf.index import Types

__all__ = ["BadBtf", "Types"]
