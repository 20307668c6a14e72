"""Read input files into Documents. Entry points: formats.plan, formats.read. May import wikitext; text comes next."""
