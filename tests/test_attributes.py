"""What setting a public attribute does: it takes effect everywhere, or is refused. For all public classes."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import crnn
from crnn._options import options_of
from crnn.interop import audio, river
from crnn.models.fitting.estimator import Estimator, EstimatorConfig
from crnn.models.language.options import LanguageConfig
from crnn.nn.config import NetworkConfig
from crnn.nn.learning.config import LearnerConfig
from crnn.optim import AnchoredUpdate
from crnn.text import contiguous_batches
from crnn.training.config import TrainingConfig

RNG = np.random.default_rng(0)
X = [RNG.normal(size=(5, 2)) for _ in range(12)]
LABELS = ["a", "b"] * 6
SERIES = np.sin(np.arange(60.0))
CORPUS = crnn.TextCorpus.from_text("abcd" * 50, valid=0.1)
SIZED = {"hidden_size": 4, "epochs": 1, "valid": None}
CONFIGS = (NetworkConfig, TrainingConfig, LanguageConfig, LearnerConfig, EstimatorConfig)
OPTIONS = sorted({each.name for config in CONFIGS for each in options_of(config)})


def language():
    return crnn.LanguageModel(CORPUS.vocab, hidden_size=4)


def regressor():
    return crnn.SequenceRegressor(2, 1, hidden_size=4, pooling=None)


OBJECTS = {
    "RNN": lambda: crnn.RNN(3, 4),
    "LanguageModel": language,
    "SequenceClassifier": lambda: crnn.SequenceClassifier(**SIZED).fit(X, LABELS),
    "SequenceTagger": lambda: crnn.SequenceTagger(2, 2, hidden_size=4),
    "SequenceRegressor": regressor,
    "SequenceToSequence": lambda: crnn.SequenceToSequence(4, 5, hidden_size=4),
    "Forecaster": lambda: crnn.Forecaster(2, **SIZED).fit(SERIES),
    "SeasonalNaive": lambda: crnn.SeasonalNaive().fit(SERIES),
    "Learner": lambda: crnn.RNN(3, 4).learner(),
    "TextLearner": lambda: language().learner(),
    "ClassLearner": lambda: crnn.SequenceTagger(2, 2, hidden_size=4).learner(),
    "ValueLearner": lambda: regressor().learner(),
    "Stream": lambda: crnn.RNN(3, 4).stream(),
    "StreamBatch": lambda: crnn.RNN(3, 4).stream_batch(2),
    "TextStream": lambda: language().stream(),
    "TextCorpus": lambda: CORPUS,
    "Vocab": lambda: CORPUS.vocab,
    "TrainingLog": crnn.TrainingLog,
    "Evaluation": lambda: language().evaluate("abcd"),
    "RegressionEvaluation": lambda: regressor().evaluate(X, [np.zeros((5, 1))] * 12),
    "SequenceEvaluation": lambda: crnn.SequenceToSequence(4, 5, hidden_size=4).evaluate([[1, 2]], [[1, 2]]),
    "Backtest": lambda: crnn.SeasonalNaive(3).backtest(SERIES, 3),
    "Progress": lambda: crnn.Progress(**dict.fromkeys(inspect.signature(crnn.Progress).parameters)),
    "PartResult": lambda: crnn.PartResult(**dict.fromkeys(inspect.signature(crnn.PartResult).parameters)),
    "Verification": lambda: crnn.Verification((), "generic", 1),
    **{rule.__name__: rule for rule in crnn.optim.optimizers.RULES.values()},
    **{rule.__name__: rule for rule in crnn.optim.averages.AVERAGES.values()},
    "AnchoredUpdate": lambda: AnchoredUpdate(np.ones(3), crnn.optim.SGD()),
    "EpochSchedule": lambda: crnn.optim.steps(0.5, after=4),
    "BPTTWindows": lambda: contiguous_batches(CORPUS.train, 2, 5),
    "Sampler": crnn.sampling.Sampler,
    "AudioModel": lambda: audio.AudioModel(crnn.SequenceRegressor(1, 1, hidden_size=4, pooling=None)),
    "RiverRegressor": lambda: river.RiverRegressor(regressor()),
    "RiverClassifier": lambda: river.RiverClassifier(crnn.SequenceTagger(2, 2, hidden_size=4)),
    "RiverAnomaly": lambda: river.RiverAnomaly(crnn.SequenceRegressor(2, 2, hidden_size=4, pooling=None)),
}
# What may be set, because it takes effect: see the tests below. Models take their arguments too.
SETTABLE = {
    "Optimizer": {"lr", "weight_decay", "updates", "arrays"},
    "Sampler": {"temperature", "top_k", "top_p"},
    "SeasonalNaive": {"season"},
    "Stream": {"state"},
    "TextStream": {"state"},
    "Module": {"training_runs"},
    "TrainingLog": {"unit", "counted", "notes", "drawn_in"},
}
every = pytest.mark.parametrize("name", OBJECTS)
REFUSALS = {"Progress": (AttributeError, TypeError)}  # Python's of a frozen class with slots, for other names


def may_be_set(found, name):
    if isinstance(found, Estimator) and name in found._defaults():
        return True
    kinds = {each.__name__ for each in type(found).__mro__}
    return any(kind in kinds and name in names for kind, names in SETTABLE.items())


def test_every_public_class_is_tested():
    public = {crnn: crnn.__all__, crnn.optim: crnn.optim.__all__, crnn.sampling: crnn.sampling.__all__}
    public[river] = river.__all__
    classes = {name for module, names in public.items() for name in names if inspect.isclass(getattr(module, name))}
    classes = {name for name in classes if not issubclass(getattr(crnn, name, object), Exception)}
    assert classes - {"Optimizer", "Average"} <= set(OBJECTS)


@every
def test_an_attribute_takes_effect_or_is_refused(name):
    found = OBJECTS[name]()
    public = {each for each in dir(found) if not each.startswith("_")}
    tried = 0
    for each in sorted(public | set(OPTIONS)):
        value = getattr(found, each, 5)
        if may_be_set(found, each) or inspect.isroutine(value):
            continue
        with pytest.raises(REFUSALS.get(name, AttributeError)):
            setattr(found, each, value)
        tried += 1
    assert tried > 20
    assert {each for each in dir(found) if not each.startswith("_")} == public


@every
def test_a_misspelt_attribute_is_refused(name):
    found = OBJECTS[name]()
    for each in ("hiden_size", "note"):
        with pytest.raises(REFUSALS.get(name, AttributeError)):
            setattr(found, each, 5)


@pytest.mark.parametrize(
    ("name", "attribute", "value", "message"),
    [
        ("RNN", "cell", "gru", r"cell: expected an argument of RNN\(\), which cannot change later, got 'gru'; make a"),
        ("RNN", "hiden_size", 5, "hiden_size: RNN has no attribute of this name; did you mean hidden_size?"),
        ("RNN", "flat_params", [1.0], r"flat_params: expected new values of its elements, flat_params\[\.\.\.\] = val"),
        ("RNN", "params", {}, r"params: expected new values of its elements, params\[name\] = values"),
        ("RNN", "lr", 0.1, "lr: expected as an argument of learner, got it as an attribute, 0.1"),
        ("RNN", "gates", 2, "gates: expected no assignment to this attribute, which RNN itself sets, got 2"),
        ("LanguageModel", "hidden_size", 5, r"hidden_size: expected an argument of LanguageModel\(\), which cannot"),
        ("LanguageModel", "epochs", 5, "epochs: expected as an argument of fit, got"),
        ("LanguageModel", "note", 5, "note: LanguageModel has no attribute of this name; a subclass may have others"),
        ("SequenceClassifier", "net", None, "net: expected no assignment"),
        ("SequenceClassifier", "bptt", 4, "bptt: expected as an argument of fit or learner"),
        ("TextLearner", "lr", 4, r"lr: expected an option of learner\(\), which cannot change later, got 4"),
        ("TextLearner", "steps", 4, "steps: expected no assignment to this attribute, which TextLearner itself sets"),
        ("SGD", "momentum", 0.9, r"momentum: expected an argument of SGD\(\), which cannot change later, got 0.9"),
        ("AnchoredUpdate", "max_change", 0.9, r"max_change: expected an argument of AnchoredUpdate\(\)"),
        ("RiverRegressor", "options", {}, r"options: expected an argument of RiverRegressor\(\)"),
    ],
)
def test_a_refusal_says_what_to_do(name, attribute, value, message):
    with pytest.raises(AttributeError, match=f"^{message}"):
        setattr(OBJECTS[name](), attribute, value)


@pytest.mark.parametrize("name", [name for name in OBJECTS if issubclass(getattr(crnn, name, object), Estimator)])
def test_every_argument_of_a_model_that_is_set_counts_for_the_next_fit(name):
    model = OBJECTS[name]()
    for argument in model._defaults():
        value = object()
        setattr(model, argument, value)
        assert model.get_params()[argument] is value


def test_what_is_set_and_not_yet_applied_is_refused_by_a_training_that_would_ignore_it():
    model = OBJECTS["SequenceClassifier"]()
    data = model.data(X, LABELS)
    crnn.fit(model, data, epochs=1)
    model.dropout = 0.5
    with pytest.raises(ValueError, match=r"^dropout: expected 0.0, with which the model was built, got 0.5, which has"):
        crnn.fit(model, data, epochs=1)
    model.fit(X, LABELS)
    crnn.fit(model, data, epochs=1)
    assert model.net.dropout == 0.5


def test_the_rate_of_an_optimizer_counts_for_the_next_update_and_is_checked():
    for rule in crnn.optim.optimizers.RULES.values():
        made, other, g = rule(), rule(lr=0.3, weight_decay=0.1), np.ones(3)
        made.lr, made.weight_decay = np.float32(0.3), 0.1
        made.lr = 0.3
        these, those = np.arange(3.0), np.arange(3.0)
        made.update(these, g)
        other.update(those, g)
        assert these.tobytes() == those.tobytes()
        for name, wrong in (("lr", -1), ("lr", "x"), ("weight_decay", np.nan)):
            with pytest.raises(ValueError, match=f"^{name}: expected a number of at least 0"):
                setattr(made, name, wrong)
        assert made.settings() == other.settings()


def test_the_temperature_of_a_sampler_counts_for_the_next_draw_and_is_checked():
    sampler = crnn.sampling.Sampler(seed=0)
    sampler.temperature, sampler.top_k, sampler.top_p = 0.5, 3, 0.9
    other, logits = crnn.sampling.Sampler(0.5, 3, 0.9, seed=0), RNG.normal(size=7)
    assert [sampler(logits) for _ in range(20)] == [other(logits) for _ in range(20)]
    for name, wrong in (("temperature", -1), ("top_k", 0), ("top_p", 2)):
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            setattr(sampler, name, wrong)


def test_the_season_of_a_naive_forecaster_counts_for_the_next_fit_and_is_checked():
    naive = crnn.SeasonalNaive(3).fit(SERIES)
    naive.season = 4
    assert (naive.season_, naive.fit(SERIES).season_) == (3, 4)
    with pytest.raises(ValueError, match=r"^season: expected"):
        naive.season = -1


def test_records_of_runs_are_checked_and_stay_in_files():
    net = crnn.RNN(3, 4)
    net.training_runs = [{"epochs": 3}]
    assert pickle.loads(pickle.dumps(net)).training_runs == ({"epochs": 3},)
    with pytest.raises(ValueError, match="training_runs: expected a list of records, got 5"):
        net.training_runs = 5
    with pytest.raises(AttributeError, match="training_runs: expected a call of fit before this"):
        crnn.SequenceClassifier(hidden_size=4).training_runs = []


def test_a_method_can_be_replaced():
    net = crnn.RNN(3, 4)
    net.describe = lambda: "mine"
    assert repr(net) == "RNN(mine, dtype='float32')"


class Mine(crnn.RNN):
    note = "class"

    def __init__(self, size):
        super().__init__(3, size)
        self.size, self.note = size, "own"


def test_a_subclass_has_attributes_of_its_own_and_no_others_of_the_network():
    net = Mine(4)
    net.size = net.other = 5
    assert (copy.copy(net).size, net.note, net.other) == (5, "own", 5)
    for name in ("cell", "dropout", "hidden_sizes", "stack"):
        with pytest.raises(AttributeError, match=f"^{name}: expected"):
            setattr(net, name, 5)


class Constant(crnn.optim.Optimizer):
    def __init__(self, lr, size):
        super().__init__(lr, 0.0, ())
        self.size = size

    def _step(self, params, grads, factor, lr, threads):
        params -= lr * self.size


def test_an_optimizer_of_a_user_has_attributes_of_its_own():
    rule, params = Constant(1.0, 2.0), np.zeros(1)
    rule.size = 3.0
    rule.update(params, np.ones(1))
    assert (params[0], rule.settings()) == (-3.0, {"lr": 1.0, "weight_decay": 0.0, "size": 3.0})
