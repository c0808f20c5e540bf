"""Hidden states without and with the adapter."""
