"""A report as pages for people: `report.html`, which needs nothing else, and `report.md`."""
