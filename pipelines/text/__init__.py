"""Convert a document to clean text, sentences and token ids. Entry: wordpiece.WordPiece. May import readers."""
