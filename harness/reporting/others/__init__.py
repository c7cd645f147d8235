"""Results of others: whether they can be trusted, and how several results folders become one report."""
