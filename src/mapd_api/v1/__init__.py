"""Generated from proto/mapd_api/v1 by ``./dev proto``. Do not edit."""
