"""A report as pages for people: `report.html`, which needs nothing else, and `report.md`."""

from snnprune.pages.writing import FILES, PAGES, write_pages, write_report

__all__ = ["FILES", "PAGES", "write_pages", "write_report"]
