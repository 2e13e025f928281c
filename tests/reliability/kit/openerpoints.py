"""The opener's points. Standard library and the opener's modules alone: this is imported in its interpreter.

It runs before the opener has a thread and is locked in.
"""

from __future__ import annotations

from mapd.bpf.control import LinuxControl
from mapd.launch import openerprocess
from mapd.opener import server
from tests.reliability.kit.points import Points, Rules, connect


def main(settings: str, rules: str, gate: str) -> None:
    """The opener, with points."""
    points = Points(Rules.from_json(rules), connect(gate))
    points.wrap(LinuxControl, "control", "control")
    points.wrap(getattr(server, "_Opener"), "_answer", "answer")  # noqa: B009 - nothing else sends
    openerprocess.main(settings)
