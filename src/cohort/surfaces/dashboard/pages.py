"""The pages of the dashboard."""

from __future__ import annotations

from fastapi import FastAPI


def install_dashboard(app: FastAPI) -> None:
    """Adds the pages to `app`."""
