import sys

import numpy as np
import pytest

import minitl
from minitl.errors import UsageError, ValueRangeError
from minitl.step import loss_and_gradients
from minitl.training.data import Dataset, digits, shift, split
from minitl.training.fit import accuracy, fit
from minitl.training.optimizers import SGD, Adam
from minitl.training.schedules import constant

PAIR = split(digits([0, 1], size=8), 40, seed=0)[0]


def small_network(method="ft-all", seed=0):
    return minitl.methods.get(method).apply(minitl.networks.digits_irb(num_classes=2, width=0.25, seed=seed))


def train(network, **changes):
    settings = {"optimizer": Adam(0.01), "epochs": 2, "batch_size": 10, "augment": shift, "seed": 3}
    return fit(network, PAIR, **{**settings, **changes})


def state_bytes(network):
    return b"".join(array.tobytes() for array in network.state_dict().values())


def test_training_learns():
    network = small_network()
    history = train(network, epochs=9, augment=None)
    assert len(history.loss) == len(history.accuracy) == 9
    assert history.loss[-1] < history.loss[0] / 3
    assert history.accuracy[-1] > 0.9
    assert accuracy(network, PAIR) > 0.9


def test_the_same_seed_gives_the_same_bytes():
    one, two, other = small_network(), small_network(), small_network()
    assert train(one) == train(two)
    assert state_bytes(one) == state_bytes(two)
    train(other, seed=4)
    assert state_bytes(one) != state_bytes(other)


def test_only_what_the_method_trains_changes():
    network = small_network("ft-last")
    before = network.state_dict()
    train(network)
    changed = {name for name, array in network.state_dict().items() if not np.array_equal(array, before[name])}
    assert changed == set(network.trained_parameters())


@pytest.fixture
def losses(monkeypatch):
    """The loss of every step that `fit` takes from now on."""
    seen = []

    def step(*arguments, **options):
        results = loss_and_gradients(*arguments, **options)
        seen.append(results[0])
        return results

    monkeypatch.setattr("minitl.training.steps.loss_and_gradients", step)
    return seen


def test_every_step_is_scheduled(losses):
    asked = []

    def schedule(step, steps):
        asked.append((step, steps))
        return 0.0

    network = small_network("ft-last")
    before = state_bytes(network)
    history = train(network, batch_size=13, schedule=schedule)  # 40 = 3 * 13 + 1
    assert asked == [(step, 6) for step in range(6)]
    assert len(losses) == 6
    assert state_bytes(network) == before  # the learning rate was scaled by zero
    assert history.loss[0] == pytest.approx(np.mean(losses[:3]))


def test_history_counts_the_images_of_a_smaller_last_batch_as_they_are(losses):
    network = small_network("ft-last")
    history = train(network, epochs=1, batch_size=15, schedule=lambda step, steps: 0.0)
    assert history.loss[0] == pytest.approx(np.dot(losses, [15, 15, 10]) / 40)


def test_one_step_of_sgd_is_minus_lr_times_the_gradient():
    network, twin = small_network("ft-last"), small_network("ft-last")
    _, _, gradients = loss_and_gradients(twin, PAIR.images, PAIR.labels)
    before = network.state_dict()
    train(network, optimizer=SGD(0.5), schedule=constant, epochs=1, batch_size=40, augment=None)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(before[name] - network.state_dict()[name], 0.5 * gradient, atol=1e-6)


@pytest.mark.parametrize("optimizer", [SGD(1e30), SGD(0.1)])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_it_reaches_a_parameter(optimizer):
    network = small_network()
    if optimizer.lr < 1:
        next(iter(network.trained_parameters().values()))[...] = np.nan
    with pytest.raises(ValueRangeError, match=r"expected (a )?finite"), np.errstate(all="ignore"):
        train(network, optimizer=optimizer, epochs=20)


@pytest.mark.parametrize("rich", ["installed", "missing"])
def test_progress_is_a_line_an_epoch_where_there_is_no_terminal(rich, monkeypatch, capfd):
    if rich == "missing":
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    history = train(small_network("ft-last"), epochs=2, progress="adapting")
    lines = [
        f"adapting: epoch {number}/2: loss {loss:.4f}, {right:.1%} right\n"
        for number, (loss, right) in enumerate(zip(history.loss, history.accuracy, strict=True), start=1)
    ]
    assert capfd.readouterr() == ("", "".join(lines))
    train(small_network("ft-last"), epochs=1)
    assert capfd.readouterr() == ("", "")


def test_accuracy_is_the_fraction_correct(monkeypatch):
    def always_1(images, batch_size):
        assert batch_size == 7
        return np.tile(np.float32([0.1, 0.9, 0.3]), (len(images), 1))

    data = Dataset(np.zeros((4, 2, 2, 3), np.float32), [1, 0, 1, 2], ["a", "b", "c"])
    network = minitl.networks.digits_irb(num_classes=3, width=0.25)
    monkeypatch.setattr(network, "predict", always_1)
    assert accuracy(network, data, batch_size=7) == 0.5


def test_nothing_to_train_on_or_to_judge_by_is_refused():
    nothing = PAIR.take(np.arange(0))
    with pytest.raises(ValueRangeError, match="at least one image"):
        accuracy(small_network(), nothing)
    with pytest.raises(ValueRangeError, match="at least one image"):
        fit(small_network(), nothing, optimizer=SGD(0.1), epochs=1, batch_size=2)
    with pytest.raises(ValueRangeError, match="expected epochs of at least 1, got 0"):
        train(small_network(), epochs=0)


def test_every_step_drops_other_values_and_another_seed_others_again(monkeypatch):
    drawn = []

    def step(*arguments, seed, **options):
        drawn.append(seed)
        return loss_and_gradients(*arguments, seed=seed, **options)

    monkeypatch.setattr("minitl.training.steps.loss_and_gradients", step)
    for seed in (3, 3, 4):
        train(small_network("ft-last"), seed=seed)
    first, again, other = drawn[:8], drawn[8:16], drawn[16:]
    assert len(set(first)) == 8
    assert first == again
    assert not set(first) & set(other)


def test_dropout_follows_the_seed_and_the_layer():
    network = minitl.networks.mobilenet_v3_small(num_classes=2, width=0.25, dropout=0.5)
    minitl.methods.get("ft-last").apply(network)
    images = PAIR.images[:4]
    logits = [network(minitl.Tape(seed=seed), images).value.tobytes() for seed in (0, 0, 1)]
    assert logits[0] == logits[1] != logits[2]


@pytest.mark.parametrize("method", ["ft-all", "mobiletl-exact"])
@pytest.mark.parametrize("make", [lambda: SGD(0.05), lambda: SGD(0.05, momentum=0), lambda: Adam(0.01)])
def test_gradients_applied_as_they_come_train_to_the_same_bytes(method, make):
    one, other = small_network(method), small_network(method)
    first, second = make(), make()
    assert train(one, optimizer=first) == train(other, optimizer=second, apply=True)
    assert state_bytes(one) == state_bytes(other)
    assert {n: s.steps for n, s in first.state.items()} == {n: s.steps for n, s in second.state.items()}


def test_a_global_norm_is_not_clipped_as_gradients_come():
    network, optimizer = small_network(), SGD(0.05, clip_norm=1.0)
    before = state_bytes(network)
    with pytest.raises(UsageError, match="the global norm is known only when every gradient is there"):
        train(network, optimizer=optimizer, apply=True)
    assert state_bytes(network) == before
    assert optimizer.state == {}
    train(network, optimizer=optimizer)


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_what_is_refused_as_gradients_come_is_left_finite(lr):
    network = small_network()
    with pytest.raises(ValueRangeError):
        train(network, optimizer=SGD(lr), epochs=20, apply=True)
    assert all(np.isfinite(array).all() for array in network.state_dict().values())
    small_network().load_state_dict(network.state_dict())
