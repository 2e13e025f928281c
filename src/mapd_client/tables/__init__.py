"""Maps as numpy arrays, Arrow tables and frames, and files of them; and tables as what is loaded into a map.

numpy, pyarrow, pandas and polars are imported by the functions that need them, never by these modules.
"""

from mapd_client.tables.metadata import about, trailer_of

__all__ = ["about", "trailer_of"]
