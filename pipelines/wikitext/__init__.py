"""MediaWiki's markup -> plain text. Entry: converter.to_text. After common; readers come next."""
