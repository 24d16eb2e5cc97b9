"""One module per stage; each reads sealed artifacts and writes exactly one. Stages never import each other."""
