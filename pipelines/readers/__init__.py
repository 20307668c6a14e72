"""Files -> Documents. Entry: formats.plan, formats.read. After wikitext; text comes next."""
