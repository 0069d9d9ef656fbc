"""Stored results of a run -> one self-contained HTML page. Nothing is measured here."""

from __future__ import annotations

from demoalign.report.card import write_cards
from demoalign.report.page import write_report

__all__ = ["write_cards", "write_report"]
