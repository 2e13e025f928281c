"""What maps mean: which operations a type has, how groups run, how a scan stays exact.

Blocking; runs on the syscall pool. Imports mapd.bpf and mapd_api, never asyncio, grpc or anything
above it. Keys and values are bytes here as everywhere on this side.
"""
