"""Alertmanager asks for actions: what is taken from it, what is decided, and how little of it is done."""
