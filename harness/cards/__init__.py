"""Cards: what a backbone or dataset declares about itself in `card.toml`, readable without importing its code."""

from harness.cards.card_types import (
    ALL,
    PEOPLE,
    STARTS,
    VARIES,
    BackboneCard,
    Claim,
    DatasetCard,
    InputCard,
    Layout,
    ParameterCount,
    PretrainedCard,
    Published,
    Requirement,
    SplitCount,
    Variant,
    read_card,
)
from harness.cards.tables import LARGEST, from_table, read_toml, same_type

__all__ = [
    "ALL",
    "LARGEST",
    "PEOPLE",
    "STARTS",
    "VARIES",
    "BackboneCard",
    "Claim",
    "DatasetCard",
    "InputCard",
    "Layout",
    "ParameterCount",
    "PretrainedCard",
    "Published",
    "Requirement",
    "SplitCount",
    "Variant",
    "from_table",
    "read_card",
    "read_toml",
    "same_type",
]
