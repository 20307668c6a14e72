"""A Group -> masked sentence pairs as arrays: pure functions of data and seed. After shuffle; shards come next."""
