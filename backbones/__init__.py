"""Backbones: one folder each, a card (data) and a model (code), with shared parts beside them."""
