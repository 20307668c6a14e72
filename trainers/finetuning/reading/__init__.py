"""Tables, tagged sentences and questions -> rows, with where each is in its file. tasks come next."""
