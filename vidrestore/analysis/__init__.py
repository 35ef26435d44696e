"""Pass one: decode, detect, track, align; gives an Analysis."""
