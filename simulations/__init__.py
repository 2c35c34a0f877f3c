"""Worlds whose truth is known, policies that play them in one loop, and reports of how they did."""
