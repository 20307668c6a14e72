"""Convert MediaWiki's markup to plain text. Entry: converter.to_text. May import common; readers come next."""
