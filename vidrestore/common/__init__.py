"""What every package uses: errors, settings, events, threads, times, files, the machine."""
