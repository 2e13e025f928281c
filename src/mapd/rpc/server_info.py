"""What a daemon says of itself."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from mapd.access.principal import Principal
from mapd.maps.trials import Answer, Trial
from mapd_api import __version__, limits
from mapd_api.v1 import maps_pb2
from mapd_api.v1.maps_pb2 import Limits, ServerInfo, TypeTrial
from mapd_api.v1.types_pb2 import MapType

_ANSWERS: Final[Mapping[Answer, maps_pb2.TrialAnswer]] = {
    Answer.OK: maps_pb2.TRIAL_ANSWER_OK,
    Answer.REFUSED: maps_pb2.TRIAL_ANSWER_REFUSED,
    Answer.UNKNOWN: maps_pb2.TRIAL_ANSWER_UNKNOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """True from start to stop.

    Attributes:
        epoch: random at every start.
        profile: minimal, pins-ro, pins-rw, network, inspector.
        features: names of abilities that a client may ask for.
        trials: what this kernel said of each map type at the start.
        programs: those that it was found to load then, by name.
    """

    epoch: str
    boot_id: uuid.UUID
    node: str
    kernel_release: str
    possible_cpus: int
    profile: str
    backend: str
    pin_root: str
    features: Sequence[str]
    trials: Mapping[int, Trial] = field(default_factory=dict[int, Trial])
    programs: frozenset[str] = frozenset()

    def server_info(self, principal: Principal) -> ServerInfo:
        """As one principal is told."""
        return ServerInfo(
            version=__version__,
            epoch=self.epoch,
            boot_id=str(self.boot_id),
            node=self.node,
            kernel_release=self.kernel_release,
            byteorder=sys.byteorder,
            possible_cpus=self.possible_cpus,
            features=self.features,
            limits=Limits(
                message_bytes=limits.MESSAGE_BYTES,
                chunk_bytes=limits.CHUNK_MAX_BYTES,
                batch_elements=limits.BATCH_ELEMENTS,
                groups=limits.GROUPS,
                handles=limits.HANDLES,
            ),
            profile=self.profile,
            backend=self.backend,
            principal=principal.name,
            namespace=principal.namespace,
            pin_root=self.pin_root,
            types=[
                TypeTrial(type=cast("MapType", number), answer=_ANSWERS[trial.answer], errno=trial.errno)
                for number, trial in sorted(self.trials.items())
            ],
            programs=sorted(self.programs),
        )


def profile_of(capabilities: frozenset[str]) -> str:
    """The most that a set of effective capabilities gives (design: least privilege).

    Profiles may be combined; of several, the one that reaches most of others' maps is told.
    """
    for name, needed in (
        ("inspector", {"CAP_SYS_ADMIN"}),
        ("pins-rw", {"CAP_BPF", "CAP_DAC_OVERRIDE"}),
        ("pins-ro", {"CAP_BPF", "CAP_DAC_READ_SEARCH"}),
        ("network", {"CAP_BPF", "CAP_NET_ADMIN"}),
        ("minimal", {"CAP_BPF"}),
    ):
        if needed <= capabilities:
            return name
    return "none"
