"""One run, from the request to the finished file."""
