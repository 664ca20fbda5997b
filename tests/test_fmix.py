import pytest
import torch
from pydantic import ValidationError

from model.training.fmix import FMixConfig, MixedTargets, mix


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def noise(count: int) -> torch.Tensor:
    """Images with hardly a pixel in common."""
    return torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8)


def test_every_pixel_comes_from_the_image_or_its_partner_in_the_stated_shares():
    images = noise(300)
    mixed, (partners, lam) = mix(images, FMixConfig(probability=1))
    own, others = mixed == images, mixed == images[partners]
    assert (own | others).all()
    lone = partners != torch.arange(300)
    torch.testing.assert_close(own.flatten(1).float().mean(1)[lone], lam[lone], atol=0.02, rtol=0)
    assert lam.min() >= 0.5
    assert lam.max() <= 1
    assert lam.mean().item() == pytest.approx(0.75, abs=0.02)


def test_images_are_mixed_with_the_given_probability():
    images = noise(400)
    mixed, targets = mix(images, FMixConfig(probability=0.25))
    same = (mixed == images).flatten(1).all(1)
    assert 280 < same.sum() < 320
    assert (targets.lam[~same] < 1).all()


def test_masks_consist_of_few_large_regions():
    black, white = torch.zeros(50, 28, 28, dtype=torch.uint8), torch.full((50, 28, 28), 255, dtype=torch.uint8)
    mixed, _ = mix(torch.cat([black, white]), FMixConfig(probability=1))
    borders = (mixed[:, 1:] != mixed[:, :-1]).float().mean()
    assert 0.005 < borders < 0.1, "of all neighbours; it would be a third or more if each pixel were drawn alone"


def test_the_target_of_each_label_is_its_share():
    mixed = MixedTargets(partners=torch.tensor([1, 0, 2]), lam=torch.tensor([0.75, 1.0, 0.5]))
    targets = mixed.probabilities(torch.tensor([3, 5, 7]))
    assert targets[0, [3, 5]].tolist() == [0.75, 0.25]
    assert targets[1, 5] == 1
    assert targets[2, 7] == 1
    assert targets.sum(1).tolist() == [1, 1, 1]


def test_the_same_seed_gives_the_same_images():
    images = noise(20)
    torch.manual_seed(5)
    first, _ = mix(images, FMixConfig(probability=0.5))
    torch.manual_seed(5)
    assert torch.equal(mix(images, FMixConfig(probability=0.5))[0], first)
    assert not torch.equal(mix(images, FMixConfig(probability=0.5))[0], first)
    assert first.dtype == torch.uint8


@pytest.mark.parametrize("probability", [0, 1.1])
def test_an_impossible_probability_is_refused(probability):
    with pytest.raises(ValidationError, match="probability"):
        FMixConfig(probability=probability)
