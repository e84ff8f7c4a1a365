"""A report as pages for people: `report.html`, which needs nothing else, and `report.md`."""

from snnprune.pages.writing import PAGES, REPORT, write_pages, write_report

__all__ = ["PAGES", "REPORT", "write_pages", "write_report"]
