"""ZEST: scores that are what they say, of every parameter once, and that leave no trace in the network."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.nafnet import NAFNet, StackAttention
from otf_stream.learn.slices import CHANNELS
from otf_stream.learn.training import layers_of, psnr_loss
from otf_stream.learn.zest import (
    PROXIES,
    LayerScores,
    flow_shares,
    rank_layers,
    score_layers,
    select_layers,
    within_share,
)

CPU = choose_compute("cpu")


def tiny(guides=0, seed=0):
    """A network of one level whose every layer matters, and a batch for it."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = NAFNet(width=4, enc_blk_nums=(1,), dec_blk_nums=(1,), guide_channels=guides)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    clean = torch.rand(3, 1, 16, 16, generator=generator)
    degraded = torch.cat([functional.avg_pool2d(clean, 3, 1, 1), torch.rand(3, guides, 16, 16, generator=generator)], 1)
    return network, (degraded, clean)


def gradient(network, degraded, clean):
    """The gradient of the loss, in one vector."""
    network = copy.deepcopy(network).train()
    functional.mse_loss(network(degraded), clean).backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()]).double()


def by_layer(network, values):
    """Cut a vector with a value for every parameter into layers."""
    parameters = list(network.parameters())
    cut = dict(zip(map(id, parameters), values.split([p.numel() for p in parameters]), strict=True))
    return {name: torch.cat([cut[id(p)] for p in owned]) for name, owned in layers_of(network).items()}


@pytest.mark.parametrize("guides", [0, 2])
def test_every_parameter_is_scored_exactly_once(guides):
    network, batch = tiny(guides)
    scores = score_layers(network, batch, CPU)
    assert sum(layer.parameters for layer in scores) == sum(p.numel() for p in network.parameters())
    assert len({layer.name for layer in scores}) == len(scores)
    for layer in scores:
        module = network.get_submodule(layer.name)
        assert layer.parameters == sum(p.numel() for p in module.parameters(recurse=False)) > 0
        assert set(layer.proxies) == set(PROXIES)
        assert np.isfinite(list(layer.proxies.values())).all()
    assert {"intro", "encoders.0.0", "encoders.0.0.conv1", "middle_blks.0.sca.1"} <= {layer.name for layer in scores}


def test_proxies_agree_with_what_they_are_defined_as():
    network, (degraded, clean) = tiny()
    scores = {layer.name: layer.proxies for layer in score_layers(network, (degraded, clean), CPU)}
    flat = torch.cat([p.detach().flatten() for p in network.parameters()]).double()
    whole = gradient(network, degraded, clean)
    single = torch.stack([gradient(network, *patch) for patch in zip(degraded.split(1), clean.split(1), strict=True)])
    w, g, squares = by_layer(network, flat), by_layer(network, whole), by_layer(network, single.square().mean(0))
    for name, proxies in scores.items():
        assert proxies["gradient_norm"] == pytest.approx(float(g[name].norm()), rel=1e-4)
        assert proxies["snip"] == pytest.approx(float((w[name] * g[name]).abs().sum()), rel=1e-4)
        assert proxies["weight_gradient"] == pytest.approx(float((w[name] * g[name]).sum()), rel=1e-3, abs=1e-7)
        assert proxies["fisher"] == pytest.approx(float(squares[name].sum()), rel=1e-4)
        assert proxies["weight_mean"] == pytest.approx(float(w[name].mean()), rel=1e-5, abs=1e-9)
        assert proxies["weight_variance"] == pytest.approx(float(w[name].var(correction=0)), rel=1e-5, abs=1e-9)


def test_proxies_do_not_depend_on_which_are_asked_for():
    network, batch = tiny()
    some = {"snip", "synflow"}
    for every, few in zip(
        score_layers(network, batch, CPU), score_layers(network, batch, CPU, proxies=some), strict=True
    ):
        assert few.proxies == pytest.approx({name: every.proxies[name] for name in some})


def test_grasp_agrees_with_finite_differences():
    network, (degraded, clean) = tiny()
    direction = gradient(network, degraded, clean)

    def moved(by):
        there = copy.deepcopy(network)
        with torch.no_grad():
            for parameter, along in zip(
                there.parameters(), direction.split([p.numel() for p in there.parameters()]), strict=True
            ):
                parameter += by * along.view_as(parameter).float()
        return gradient(there, degraded, clean)

    step = 3e-3 / float(direction.norm())
    flat = torch.cat([p.detach().flatten() for p in network.parameters()]).double()
    expected = by_layer(network, -(moved(step) - moved(-step)) / (2 * step) * flat)
    found = torch.tensor([layer.proxies["grasp"] for layer in score_layers(network, (degraded, clean), CPU)])
    expected = torch.tensor([float(products.sum()) for products in expected.values()])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=float(expected.abs().max()) * 3e-4)


def test_flow_is_conserved():
    network, _ = tiny()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):  # flow would start there
                parameter.zero_()
    shares = flow_shares(network, (1, 16, 16))
    # A block's own layer is two in a row, beta and gamma.
    assert all(0 < share <= (2 if name[-1].isdigit() and "sca" not in name else 1) for name, share in shares.items())
    # All flow but that of the image itself comes in by the first convolution and leaves by the last.
    assert shares["intro"] == pytest.approx(shares["ending"])
    assert shares["encoders.0.0.conv1"] == pytest.approx(shares["encoders.0.0.conv2"])
    assert shares["encoders.0.0.conv4"] == pytest.approx(shares["encoders.0.0.conv5"])


def test_flow_is_blind_to_signs():
    network, _ = tiny()
    before = flow_shares(network, (1, 16, 16))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    assert flow_shares(network, (1, 16, 16)) == before


def test_flow_stays_within_floats_in_the_shipped_network():
    shares = flow_shares(shipped_network("deblur"), (CHANNELS, 32, 32))
    assert np.isfinite(list(shares.values())).all()
    assert min(shares.values()) > 0


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_no_trace(training):
    network, batch = tiny()
    network.train(training)
    for index, parameter in enumerate(network.parameters()):
        parameter.requires_grad_(index % 2 == 0)
        parameter.grad = torch.full_like(parameter, index) if index % 3 == 0 else None
    before = copy.deepcopy(network)
    with torch.no_grad():  # as a caller that does not train would have it
        select_layers(network, batch, CPU)
    assert network.training == training
    assert [(m.training, m._forward_hooks) for m in network.modules()] == [(training, {}) for _ in network.modules()]
    for now, then in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(now, then)
        assert now.requires_grad == then.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), before.buffers(), strict=True))
    for index, parameter in enumerate(network.parameters()):
        assert (parameter.grad is not None and bool((parameter.grad == index).all())) == (index % 3 == 0)
    assert [m.measured for m in network.modules() if isinstance(m, StackAttention)] == [False] * 3


def test_selection_is_deterministic_and_within_its_share():
    network, batch = tiny(guides=2)
    sizes = {layer.name: layer.parameters for layer in score_layers(network, batch, CPU)}
    for loss in (functional.mse_loss, psnr_loss):
        chosen = select_layers(network, batch, CPU, loss=loss, share=0.3)
        assert chosen == select_layers(network, batch, CPU, loss=loss, share=0.3)
        assert 0 < sum(sizes[name] for name in chosen) <= 0.3 * sum(sizes.values())
    assert set(select_layers(network, batch, CPU, share=1.0)) == set(sizes)


def test_a_layer_that_cannot_change_the_loss_comes_last():
    network, batch = tiny()
    with torch.no_grad():
        network.encoders[0][0].beta.zero_()  # hides what comes before it in the block
    ranked = [layer.name for layer in rank_layers(score_layers(network, batch, CPU))]
    hidden = {f"encoders.0.0.{name}" for name in ("norm1", "conv1", "conv2", "sca.1", "conv3")}
    assert set(ranked[-5:]) == hidden


def test_a_share_must_be_one():
    for share in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="share"):
            within_share([LayerScores("a", 1, {})], share)


scored = st.lists(
    st.builds(
        lambda parameters, values: (parameters, dict(zip(PROXIES, values, strict=True))),
        st.integers(1, 10_000),
        st.lists(st.integers(-(10**9), 10**9).map(lambda n: n / 1024), min_size=len(PROXIES), max_size=len(PROXIES)),
    ),
    min_size=1,
    max_size=12,
).map(lambda layers: [LayerScores(f"layer {i}", *layer) for i, layer in enumerate(layers)])


@given(scored, st.floats(1e-3, 1))
def test_the_share_is_kept_and_filled(layers, share):
    chosen = within_share(layers, share)
    sizes = {layer.name: layer.parameters for layer in layers}
    room = share * sum(sizes.values()) - sum(sizes[name] for name in chosen)
    assert len(set(chosen)) == len(chosen) > 0
    if room < 0:
        assert chosen == (layers[0].name,)
        assert min(sizes.values()) > share * sum(sizes.values())
    else:
        assert all(sizes[name] > room for name in sizes.keys() - set(chosen))


@given(scored, st.floats(1e-3, 1e3))
@settings(max_examples=50)
def test_ranks_do_not_depend_on_the_unit_of_the_loss(layers, unit):
    # A power of two, so that scores that were equal stay equal.
    unit = 2.0 ** round(np.log2(unit))
    rescaled = [
        LayerScores(layer.name, layer.parameters, {name: score * unit for name, score in layer.proxies.items()})
        for layer in layers
    ]
    ranked = [layer.name for layer in rank_layers(layers)]
    assert sorted(ranked) == sorted(layer.name for layer in layers)
    assert [layer.name for layer in rank_layers(rescaled)] == ranked
