"""The commands of ``fashionnet``, a module each with a function ``main``."""

COMMANDS = {
    "serve": "serves FashionNet over HTTP; also without the word",
    "reload": "makes the running service read its models anew",
    "key": "makes an API key",
    "predict": "classifies pictures and folders",
    "evaluate": "measures a model on the test set",
    "train": "trains a model and exports it",
    "download": "downloads the data set",
    "export": "makes the graphs of a model anew",
}
"""What each command does."""
