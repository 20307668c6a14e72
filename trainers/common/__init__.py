"""Devices and storage. The first layer of the trainers: imports no other sub-package of them."""
