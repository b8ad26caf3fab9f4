"""Boards that Emplace runs on, one file a board."""
