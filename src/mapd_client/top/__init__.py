"""``mapctl top``: maps as they fill and change. ``model`` and ``paging`` know no terminal; ``app`` draws by textual."""
