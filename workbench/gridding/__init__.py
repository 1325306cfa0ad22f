"""Old and new policies, contexts and limits, crossed: what each changed decision is due to."""
