"""Backbones: one folder each with a card (data) and a model (code), and modules that several of them share."""
