"""Conversations: what was asked and answered, kept in a database."""
