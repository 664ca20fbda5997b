"""The initial weights of the photo model: EfficientNet-Lite2 as trained on ImageNet."""

import torch

from model.data import CLASSES
from model.efficientnet import load_imagenet_weights
from model.network import PhotoFashionNet

IMAGENET_CLASSES: dict[str, tuple[int, ...]] = {
    "T-shirt/top": (610,),  # jersey
    "Trouser": (608,),  # jean
    "Pullover": (841, 474),  # sweatshirt, cardigan
    "Dress": (578,),  # gown
    "Coat": (869, 568),  # trench coat, fur coat
    "Sandal": (774,),
    "Shirt": (834, 655),  # suit, miniskirt: nothing is nearer
    "Sneaker": (770,),  # running shoe
    "Bag": (748, 414, 636),  # purse, backpack, mailbag
    "Ankle boot": (514,),  # cowboy boot
    "none": (515, 655, 808, 439),  # cowboy hat, miniskirt, sombrero, bearskin
}
"""Classes of ImageNet whose weights the classifier of each of our classes starts from. No photo of a bag trains it, so
what ImageNet knows of bags matters."""


def start_from_imagenet(network: PhotoFashionNet) -> PhotoFashionNet:
    """Gives ``network`` the weights of ImageNet and returns it.

    Raises:
        TrainingError: the package of the weights is not installed.
    """
    weights = load_imagenet_weights()
    network.trunk.load_state_dict(weights.trunk)
    rows = [weights.fc_weight[list(IMAGENET_CLASSES[name])].mean(0) for name in (*CLASSES, "none")]
    with torch.no_grad():
        network.fc.weight.copy_(torch.stack(rows))
        network.fc.bias.zero_()
    return network
