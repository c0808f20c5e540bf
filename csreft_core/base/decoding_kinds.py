"""By whose settings an answer is decoded: those of this program, or the base's own."""

OURS, BASE_OWN = "ours", "base"
