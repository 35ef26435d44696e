"""Compositing: restored faces are pasted into frames."""
