"""Training, from the recipe to the artefact. Needs the extra ``train``."""
