"""The pages' building blocks: the only part of the library that knows Streamlit."""

from csreft_core.base.passive_waiting import wait_passively

# Here, because it must come before the first import of torch, and every page imports this package.
wait_passively()
