"""Why a decision comes out as it does: policies as clauses, what each was, and what would have to change."""
