import dataclasses
import json
import multiprocessing
import time

import numpy as np
import pytest

import minitl
from minitl.errors import NotFiniteError, UnknownNameError, UsageError, ValueRangeError
from minitl.training.adapt import Task, adapt, network, pretrain
from minitl.training.choice import CHOICES, Choice
from minitl.training.compare import Demonstration, compare, comparing, ledger
from minitl.training.search import Outcome, Trial

TINY = Task(source=(0, 1), target=(2, 3, 4), size=8, source_epochs=1, images=20, epochs=1, batch=10)
TWO = (Choice("ft-last"), Choice("mobiletl", 2))


@pytest.fixture(scope="module")
def results():
    return compare(TWO, seeds=2, task=TINY, workers=2)


def test_the_results_have_exactly_the_promised_fields(results):
    fields = {"method", "blocks", "options", "seeds", "accuracy", "kept_bytes", "peak_bytes", "total_bytes"}
    for result, choice in zip(results, TWO, strict=True):
        data = json.loads(json.dumps(dataclasses.asdict(result)))
        assert set(data) == fields | {"trained_parameters", "flops", "seconds", "learning_rates"}
        assert result.choice == choice
        assert result.seeds == len(result.accuracy) == 2
        assert all(0 <= accuracy <= 1 for accuracy in result.accuracy)
        assert result.seconds > 0


def test_the_bytes_and_flops_are_those_of_a_real_step(results):
    for result, choice in zip(results, TWO, strict=True):
        net, tape = network(TINY, choice.build()), minitl.Tape()
        loss = net.loss(tape, net(tape, np.zeros((10, 8, 8, 3), np.float32)), np.zeros(10, np.int64))
        gradients = tape.backward(loss)
        held = minitl.accounting.ledger(tape)
        assert result.kept_bytes == held.kept_bytes
        assert result.flops == held.totals.flops.total
        assert result.trained_parameters == sum(gradient.size for gradient in gradients.values())
        assert result.peak_bytes > result.kept_bytes + 3 * 4 * result.trained_parameters  # with Adam's two and p


def test_the_number_of_workers_and_the_other_methods_change_no_result(results, capfd):
    alone = compare(TWO[1:], seeds=2, task=TINY, workers=1, progress=True)
    assert dataclasses.replace(alone[0], seconds=0) == dataclasses.replace(results[1], seconds=0)
    out, err = capfd.readouterr()  # no terminal, so progress is a line a run
    assert out == ""
    assert [line[:14] for line in err.splitlines()[1:]] == [
        "[1/4] seed 0: ",
        "[2/4] seed 1: ",
        "[3/4] seed 0: ",
        "[4/4] seed 1: ",
    ]


def test_after_an_interruption_no_further_run_is_begun(monkeypatch):
    def interrupt(shown, text):
        raise KeyboardInterrupt

    monkeypatch.setattr("minitl.training.progress.Bar.advance", interrupt)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        compare(TWO, seeds=300, task=TINY, workers=1)  # all of them would take minutes
    assert time.monotonic() - start < 60
    assert not multiprocessing.active_children()


def test_an_adaptation_starts_from_the_pretrained_features_and_a_classifier_of_its_own():
    source = pretrain(TINY, 1)
    net = network(TINY, Choice("ft-last").build(), seed=1, state=source.state)
    fresh = minitl.networks.digits_irb(num_classes=3, seed=1).state_dict()
    for name, array in net.state_dict().items():
        expected = fresh if name.startswith("classifier.") else source.state
        assert np.array_equal(array, expected[name])


def test_mobiletl_keeps_about_half_of_what_fine_tuning_the_same_blocks_does():
    kept = {choice.method: ledger(choice).kept_bytes for choice in CHOICES}
    assert kept["ft-last"] < kept["mobiletl"] < 0.55 * kept["ft-blocks"] < 0.2 * kept["ft-all"]


@pytest.mark.parametrize(
    ("choices", "seeds", "error"),
    [
        ([Choice("ft-lots")], 1, UnknownNameError),
        ([Choice("mobiletl", 99)], 1, ValueRangeError),
        ([Choice("ft-last"), Choice("ft-last")], 1, ValueRangeError),
        ([], 1, ValueRangeError),
        (TWO, 0, ValueRangeError),
    ],
)
def test_impossible_comparisons_are_refused_before_any_work(choices, seeds, error):
    with pytest.raises(error):
        compare(choices, seeds=seeds, task=TINY)


def test_a_choice_is_read_as_it_is_written_on_the_command_line():
    assert Choice.parse("ft-all") == Choice("ft-all")
    assert Choice.parse(" mobiletl:2+int8+hard_swish=few2 ") == Choice("mobiletl", 2, ("int8", "hard_swish=few2"))
    for text in ("mobiletl:", "mobiletl:two"):
        with pytest.raises(ValueRangeError, match="METHOD:BLOCKS"):
            Choice.parse(text)
    with pytest.raises(UnknownNameError, match="unknown option 'int4'"):
        Choice("mobiletl", 2, ("int4",)).build()


def test_a_choice_builds_its_method_with_its_options():
    method = Choice("mobiletl", 2, ("int8", "checkpoint", "hard_swish=few2")).build()
    assert (method.name, method.blocks, method.quantised, method.checkpoint) == ("mobiletl", 2, True, True)
    assert method.rules == (("hard_swish", "few2"),)


@pytest.mark.parametrize(
    ("method", "rate"),
    [("ft-last", 0.3), ("ft-bias", 0.03), ("ft-norm", 0.03), ("ft-all", 0.01), ("ft-blocks", 0.01), ("mobiletl", 0.01)],
)
def test_each_method_is_trained_at_its_own_rate(method, rate, monkeypatch):
    """As README and the comment beside them tell; every step of an adaptation, and the network's training, as set."""
    seen = []

    def fit(network, data, *, optimizer, **settings):
        seen.append((type(optimizer).__name__, optimizer.lr, settings["epochs"], settings["batch_size"]))

    monkeypatch.setattr("minitl.training.adapt.fit", fit)
    source = pretrain(TINY, 0)
    assert seen == [("Adam", TINY.source_lr, TINY.source_epochs, TINY.source_batch)]
    chosen = Demonstration([Choice(method)], 1, (), task=TINY, sources={0: source})
    assert chosen.finals([]) == [Trial(Choice(method), 0, rate, False)]
    adapt(TINY, source, Trial(Choice(method), 0, rate, False), Choice(method).build())
    assert seen[-1] == ("Adam", rate, TINY.epochs, TINY.batch)


def test_no_rate_is_searched_on_an_image_that_is_tested_on(monkeypatch):
    """Nor is it judged by an image that it was trained on."""
    learnt, judged = [], []
    monkeypatch.setattr("minitl.training.adapt.fit", lambda network, data, **settings: learnt.append(data))
    predict = minitl.networks.Network.predict
    monkeypatch.setattr(
        minitl.networks.Network, "predict", lambda net, images: (judged.append(images), predict(net, images))[1]
    )
    source = pretrain(TINY, 3)
    for search in (True, False):
        adapt(TINY, source, Trial(TWO[0], 3, 0.01, search), TWO[0].build())
    tried, trained = ({image.tobytes() for image in data.images} for data in (learnt[2], learnt[4]))
    by, tested = ({image.tobytes() for image in images} for images in judged)
    assert (len(tried), len(by), len(trained)) == (15, 5, 20)
    assert not tested & trained
    assert (tried | by, tried & by) == (trained, set())


def test_seed_0_searches_and_every_seed_takes_its_best_rate_and_no_trial_is_repeated(tmp_path, monkeypatch):
    how = {"seeds": 2, "rates": (1e9, 0.01), "task": TINY, "workers": 1, "out": tmp_path / "trials.json"}
    whole = compare(TWO, **how)
    stored = json.loads(how["out"].read_text())
    found = [Outcome.from_json(trial) for trial in stored["trials"]]
    assert [o.trial.seed for o in found if o.trial.search] == [0] * 4
    for result in whole:
        own = [o for o in found if o.trial.search and o.trial.choice == result.choice]
        best = min(own, key=lambda o: (-o.accuracy, o.loss, o.trial.learning_rate)).trial.learning_rate
        assert result.learning_rates == [best] * 2
    assert [o.accuracy for o in found if o.trial.search and o.trial.learning_rate == 1e9][1] == 0, (
        "diverges: is no error"
    )
    how["out"].write_text(json.dumps({**stored, "trials": stored["trials"][:-1]}))
    trials = []
    monkeypatch.setattr("minitl.training.compare.adapt", lambda *a: (trials.append(a[2]), adapt(*a))[1])
    first, *_, last = comparing(TWO, resume=True, **how)
    assert trials == [found[-1].trial]
    assert [r.seeds for r in first] == [2, 1]
    assert [dataclasses.replace(r, seconds=0) for r in last] == [dataclasses.replace(r, seconds=0) for r in whole]
    with pytest.raises(UsageError, match="was begun with other task"):
        compare(TWO, resume=True, **how | {"task": dataclasses.replace(TINY, epochs=2)})


def test_a_rate_that_is_asked_for_and_diverges_is_an_error():
    with pytest.raises(NotFiniteError, match="lower the learning rate"):
        compare(TWO[1:], seeds=1, rates=(1e9,), task=TINY, workers=1)
