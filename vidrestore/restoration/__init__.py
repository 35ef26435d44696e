"""Pass two: crop, restore, steady, guard, composite."""
