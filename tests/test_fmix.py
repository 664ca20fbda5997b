import pytest
import torch
from pydantic import ValidationError

from model.training.fmix import Mixing, Mixture, mix


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def noise(count: int) -> torch.Tensor:
    """Images that have no pixel in common, or hardly any."""
    return torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8)


def test_every_pixel_is_its_own_or_the_partners_in_the_shares_that_are_told():
    images = noise(300)
    mixed, (partners, kept) = mix(images, Mixing(share=1))
    own, others = mixed == images, mixed == images[partners]
    assert (own | others).all()
    lone = partners != torch.arange(300)
    torch.testing.assert_close(own.flatten(1).float().mean(1)[lone], kept[lone], atol=0.02, rtol=0)
    assert kept.min() >= 0.5
    assert kept.max() <= 1
    assert kept.mean().item() == pytest.approx(0.75, abs=0.02)


def test_only_a_share_of_the_images_is_mixed():
    images = noise(400)
    mixed, mixture = mix(images, Mixing(share=0.25))
    same = (mixed == images).flatten(1).all(1)
    assert 280 < same.sum() < 320
    assert (mixture.kept[~same] < 1).all()


def test_masks_are_of_few_large_pieces():
    black, white = torch.zeros(50, 28, 28, dtype=torch.uint8), torch.full((50, 28, 28), 255, dtype=torch.uint8)
    mixed, _ = mix(torch.cat([black, white]), Mixing(share=1))
    borders = (mixed[:, 1:] != mixed[:, :-1]).float().mean()
    assert 0.005 < borders < 0.1, "of all neighbours; it would be a third or more if each pixel were drawn alone"


def test_the_target_is_each_label_in_its_share():
    mixture = Mixture(partners=torch.tensor([1, 0, 2]), kept=torch.tensor([0.75, 1.0, 0.5]))
    targets = mixture.targets(torch.tensor([3, 5, 7]))
    assert targets[0, [3, 5]].tolist() == [0.75, 0.25]
    assert targets[1, 5] == 1
    assert targets[2, 7] == 1
    assert targets.sum(1).tolist() == [1, 1, 1]


def test_the_same_seed_draws_the_same_mixture():
    images = noise(20)
    torch.manual_seed(5)
    first, _ = mix(images, Mixing(share=0.5))
    torch.manual_seed(5)
    assert torch.equal(mix(images, Mixing(share=0.5))[0], first)
    assert not torch.equal(mix(images, Mixing(share=0.5))[0], first)
    assert first.dtype == torch.uint8


@pytest.mark.parametrize("share", [0, 1.1])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(ValidationError, match="share"):
        Mixing(share=share)
