"""dataset.json and statistics.json -> report.html, report.md. After quality."""
