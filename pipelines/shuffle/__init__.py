"""Document keys and the one shuffle; a Group is what one shard is made from. After text; examples come next."""
