"""The second pass: crop, restore, stabilize, guard and composite faces."""
