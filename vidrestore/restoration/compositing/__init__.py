"""Paste restored faces into frames."""
