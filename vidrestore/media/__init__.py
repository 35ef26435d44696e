"""Video files: read, write, and copy all but the picture."""
