"""What mapctl writes to stdout: elements as they come, and all other records. One schema of records in every format.

``Document`` has elements, of one host or of several; ``records`` has everything else.
"""

from mapd_client.cli.outputs.documents import Document, Sink, elements
from mapd_client.cli.outputs.kinds import Output
from mapd_client.cli.outputs.listed import Field, records
from mapd_client.cli.outputs.percpu import PerCpuForm

__all__ = ["Document", "Field", "Output", "PerCpuForm", "Sink", "elements", "records"]
