"""Modules for every package: errors, settings, events, threads, times, files, the machine."""
