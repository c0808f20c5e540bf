"""A comparison of methods: its folder, its work, its presets, its measures."""
