"""Write report.html and report.md from dataset.json and statistics.json. May import quality."""
