"""The pages' building blocks: the only part of the library that knows Streamlit."""
