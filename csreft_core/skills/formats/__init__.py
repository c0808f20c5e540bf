"""Somebody's file as rows: JSONL, JSON, CSV, chats, and which field is the prompt."""
