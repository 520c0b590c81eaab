"""Streams what any other program saves, while it saves it: growing files in, planes out."""
