"""Document -> clean text -> sentences -> token ids. Entry: wordpiece.WordPiece. After readers."""
