"""The maps of many hosts: one client for each, asked at the same time (docs/how-to/fleet.md)."""

from mapd_client.fleet.fleet import Fleet
from mapd_client.fleet.map import FleetCount, FleetMap, FleetSum, Merged
from mapd_client.fleet.targets import Host, from_file_sd, from_toml

__all__ = ["Fleet", "FleetCount", "FleetMap", "FleetSum", "Host", "Merged", "from_file_sd", "from_toml"]
