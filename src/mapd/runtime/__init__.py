"""asyncio over the blocking layers: the syscall pool, handles, dumps. No grpc here.

Takes ``Authorized`` things only; every fd, thread, task and queued byte has an owner in this package.
"""
