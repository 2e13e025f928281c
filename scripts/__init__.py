"""Programs for developers of mapd; each is run as `python -m scripts.NAME` or by ./dev."""
