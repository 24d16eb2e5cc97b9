"""Text into tokens and tokens into ids: rules, tokenizers, vocabulary, id store."""
