"""The local page: `vidrestore ui`."""
