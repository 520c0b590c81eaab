"""Training: reproducible, annealed, of the layers asked for and no others, and what it returns is ready to use."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otf_stream.learn.compute import choose_compute
from otf_stream.learn.nafnet import NAFNet, StackAttention
from otf_stream.learn.training import Trainer, apply_network, layers_of, psnr_loss, with_statistics

CPU = choose_compute("cpu")


def test_the_learning_rate_warms_up_and_anneals(monkeypatch):
    network = NAFNet(width=8)
    images = torch.rand(2, 1, 16, 16)
    trainer = Trainer(network, lambda: (images, images), CPU, learning_rate=1e-2)
    rates = []
    monkeypatch.setattr(trainer._optimiser, "step", rates.append)
    for progress in (0.0, 0.03, 0.5, 1.0):
        trainer.step(progress)
    assert rates[0] < rates[1] > rates[2] > rates[3] > 0


def test_a_network_may_be_taken_at_any_moment_and_training_goes_on():
    images = torch.rand(2, 1, 16, 16)
    trainer = Trainer(NAFNet(width=8), lambda: (images, images), CPU, learning_rate=1e-2)
    trainer.step(0.1)
    taken = trainer.network([images])
    before = apply_network(taken, images, CPU)
    for _ in range(3):
        trainer.step(0.5)
    assert torch.equal(apply_network(taken, images, CPU), before)


def test_images_of_any_size_pass():
    network = NAFNet(width=8).eval()
    for height, width in ((1, 1), (3, 50), (33, 17), (64, 64)):
        images = torch.rand(1, 1, height, width)
        assert apply_network(network, images, CPU).shape == images.shape


def test_images_end_where_they_end_as_patches_did():
    network = NAFNet(width=8).eval()
    images = torch.rand(2, 1, 4 * network.multiple, 6 * network.multiple)
    with torch.inference_mode():
        torch.testing.assert_close(apply_network(network, images, CPU), network(images))
        # What a multiple lacks is mirrored, once for all.
        cut = images[..., :-1, :-2]
        mirrored = torch.nn.functional.pad(cut, (0, 2, 0, 1), mode="reflect")
        torch.testing.assert_close(apply_network(network, cut, CPU), network(mirrored)[..., :-1, :-2])


def small(seed=0):
    """A network of one level in which no gradient vanishes, and pairs for it."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = NAFNet(width=4, enc_blk_nums=(1,), dec_blk_nums=(1,))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    images = torch.rand(2, 1, 16, 16, generator=generator)
    return network, lambda: (images, images.flip(-1))


LAYERS = list(layers_of(small()[0]))


def values(network):
    """Every parameter by the layer that owns it."""
    return {name: [p.detach().clone() for p in owned] for name, owned in layers_of(network).items()}


@given(st.sets(st.sampled_from(LAYERS), min_size=1))
@settings(max_examples=15, deadline=None)
def test_what_is_selected_is_what_trains(selected):
    network, pairs = small()
    before = values(network)
    trainer = Trainer(network, pairs, CPU, learning_rate=1e-2, layers=selected)
    for _ in range(3):
        trainer.step(0.5)
    for trained in (network, trainer.network([pairs()[0]])):
        for name, parameters in values(trained).items():
            same = [torch.equal(now, then) for now, then in zip(parameters, before[name], strict=True)]
            assert same == [name not in selected] * len(same), name


def test_nothing_is_differentiated_below_the_first_trained_layer():
    network, pairs = small()
    differentiated = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda m, x, y, name=name: differentiated.update({name: y.requires_grad}))
    Trainer(network, pairs, CPU, learning_rate=1e-2, layers=["decoders.0.0.conv4"]).step(0.5)
    assert not any(differentiated[name] for name in ("intro", "middle_blks", "ups.0", "decoders.0.0.norm2"))
    assert all(differentiated[name] for name in ("decoders.0.0.conv4", "decoders.0.0.conv5", "ending"))


def test_without_a_selection_all_layers_train_also_those_that_were_held_before():
    network, pairs = small()
    Trainer(network, pairs, CPU, learning_rate=1e-2, layers=["ending"]).step(0.5)
    before = values(network)
    Trainer(network, pairs, CPU, learning_rate=1e-2).step(0.5)
    for name, parameters in values(network).items():
        assert not any(torch.equal(now, then) for now, then in zip(parameters, before[name], strict=True)), name


def test_layers_that_do_not_exist_are_refused():
    network, pairs = small()
    with pytest.raises(ValueError, match=r"no layer 'decoders\.7'; among its \d+ layers are 'intro'"):
        Trainer(network, pairs, CPU, learning_rate=1e-2, layers=["intro", "decoders.7"])
    with pytest.raises(ValueError, match="no layer is to be trained"):
        Trainer(network, pairs, CPU, learning_rate=1e-2, layers=[])


def test_the_loss_of_pretraining_weighs_scenes_of_faint_and_strong_errors_alike():
    clean = torch.zeros(4, 1, 8, 8)
    factor = torch.ones((), requires_grad=True)
    gradients = [
        torch.autograd.grad(psnr_loss(factor * error * torch.ones_like(clean), clean), factor)[0]
        for error in (0.01, 0.1, 1.0)
    ]
    for gradient in gradients:  # of twice the logarithm of the error's scale
        assert float(gradient) == pytest.approx(2, rel=0.01)


def test_statistics_are_measured_on_images_of_any_size_and_in_full_precision():
    network = NAFNet(width=8)
    images, precise = [torch.rand(2, 1, 13, 21), torch.rand(2, 1, 5, 64)], []

    def batches():
        for batch in images:
            precise.append(not torch.is_autocast_enabled("cpu"))
            yield batch

    ready = with_statistics(network, batches(), CPU)
    assert precise == [True, True]
    assert ready.training is False
    alone = [_statistics(with_statistics(network, [batch], CPU)) for batch in images]
    for both, each in zip(_statistics(ready), zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(both, sum(each) / 2)


def _statistics(network):
    attentions = [module for module in network.modules() if isinstance(module, StackAttention)]
    assert all(attention.measured for attention in attentions)
    return [attention.pooled for attention in attentions]


@pytest.mark.parametrize("cores", [1, 3])
def test_statistics_do_not_depend_on_how_many_cores_measure_them(cores):
    torch.manual_seed(0)
    network = NAFNet(width=8)
    images = [torch.rand(2, 1, 16, 16) for _ in range(7)]
    one, others = (_statistics(with_statistics(network, images, replace(CPU, side_by_side=n))) for n in (2, cores))
    for statistic, other in zip(one, others, strict=True):
        torch.testing.assert_close(statistic, other, rtol=1e-5, atol=1e-7)
