"""The demo model's workshop and the instruments that measure methods: see README.md."""
