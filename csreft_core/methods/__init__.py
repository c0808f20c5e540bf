"""The methods that CS-ReFT is compared with, behind the interface `reft.tuning.Tuning`."""
