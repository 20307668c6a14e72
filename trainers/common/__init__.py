"""Devices and storage. Comes first."""
