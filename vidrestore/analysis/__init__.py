"""Pass one: find, track and align the faces of a video; the result is an `Analysis`."""
