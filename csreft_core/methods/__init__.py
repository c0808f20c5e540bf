"""The methods that CS-ReFT is compared with, behind the interface `tuning.Tuning`."""
