"""The States page: where hidden states lie and what an edit moves."""
