"""What every page is made of: its shell, its state in the address, its widgets."""
