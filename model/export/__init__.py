"""From a network to an artefact; needs the extra ``train``."""
