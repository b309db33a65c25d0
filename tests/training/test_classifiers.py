import torch

from training.classifiers import SpatialTransformerClassifier
from training.localisation import ConvLocalisation
from training.recipes import MNIST_RTS


def network() -> SpatialTransformerClassifier:
    torch.manual_seed(0)
    return SpatialTransformerClassifier(MNIST_RTS, classes=10, channels=1)


def head(localisation: ConvLocalisation) -> torch.nn.Linear:
    layer = localisation[-1]
    assert isinstance(layer, torch.nn.Linear)
    return layer


def test_a_new_network_looks_at_the_whole_picture() -> None:
    output = network()(torch.rand(4, 1, 42, 42))
    torch.testing.assert_close(output.warps[0].theta, torch.eye(2, 3).expand(4, 2, 3))


def test_outputs_have_the_stated_shapes() -> None:
    output = network()(torch.rand(4, 1, 42, 42))
    assert output.logits.shape == (4, 10)
    assert [warp.theta.shape for warp in output.warps] == [(4, 2, 3)]
    assert [warp.rectified.shape for warp in output.warps] == [(4, 1, 28, 28)]


def test_the_rectified_image_is_not_normalised_so_that_padding_stays_black() -> None:
    trained = network().eval()
    head(trained.localisation).bias.data.fill_(0.5)
    rectified = trained(torch.ones(1, 1, 42, 42)).warps[0].rectified
    assert rectified.min() == 0
    assert rectified.max() == 1


def test_normalisation_takes_mean_and_spread_off_each_channel() -> None:
    normalised = network().normalise(torch.full((1, 1, 2, 2), MNIST_RTS.mean[0] + MNIST_RTS.std[0]))
    torch.testing.assert_close(normalised, torch.ones(1, 1, 2, 2))


def test_the_loss_reaches_the_localisation_network_through_the_sampler() -> None:
    trained = network()
    trained(torch.rand(8, 1, 42, 42)).logits.square().sum().backward()
    gradient = head(trained.localisation).weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_localisation_still_tells_pictures_apart_after_a_violent_step() -> None:
    torch.manual_seed(0)
    localisation = ConvLocalisation(1, (42, 42), 6)
    head(localisation).weight.data.normal_()
    for parameter in list(localisation.parameters())[:-2]:
        if parameter.dim() > 1:
            parameter.data -= 10 * torch.rand_like(parameter)
    predicted = localisation(torch.rand(16, 1, 42, 42))
    assert predicted.std(dim=0).min() > 0.1


def test_items_of_a_batch_do_not_touch_each_other_in_evaluation() -> None:
    trained, images = network().eval(), torch.rand(3, 1, 42, 42)
    together = trained(images).logits
    alone = torch.cat([trained(image[None]).logits for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
