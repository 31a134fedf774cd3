"""What a SavedModel answers: the transform graph and the network as one, raw journeys in, probabilities out.

Every signature sorts a journey's events, hands them to the transform graph and scores what comes out, so that all ways
in agree: `serving_default` takes rectangular tensors (what TF Serving's rows are), `examples` serialized
tf.train.Example; `evolution` scores each prefix of a journey, `influence` the journey with and without a campaign.
Where the spec has assignments, all take the campaign that is asked about, '' for none, as one more field of a journey.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from preprocessing.blocks import ASKED, NONE
from preprocessing.spec import AnySpec, EventsSpec
from trainer import counterfactual
from trainer.model import Scorer, copy_for_serving
from trainer.settings import Settings
from trainer.support import Support

_LAST = tf.int64.max
_ALMOST_SURE = 1 - 1e-7  # probabilities are held below it where their survival's logarithm is taken
_GIVEN = {"as_of": tf.int64, "length": tf.int64, "key": tf.string}
# No tensor decides an `if` of Python's, and to read the source for one takes longest.
_graph = functools.partial(tf.function, autograph=False)
_MISSING: dict[tf.DType, Any] = {tf.string: "", tf.float32: float("nan"), tf.int64: 0}


class ServedModel(tf.Module):
    """A trained model behind its transform graph."""

    def __init__(
        self, scorer: Scorer, transform: Path, spec: AnySpec, settings: Settings, support: Support | None = None
    ) -> None:
        """transform: the run directory's transform/, whose graph is taken in whole, vocabularies included; support:
        where the spec has assignments, of whom training saw enough treated and held out."""
        super().__init__()
        copy = copy_for_serving(scorer.model, settings)
        self._spec = spec
        campaigns = spec.campaigns if isinstance(spec, EventsSpec) else None
        self._has_campaigns = campaigns is not None
        self.campaign_column = campaigns.column if campaigns else None
        column = self.campaign_column
        self._touchable = vocabulary(transform, (column,))[column] if column else []
        self._question = None
        if spec.assignments is not None:
            assert support is not None, "a spec with assignments needs to know whom training saw"
            drawn = [spec.assignments.is_randomised(campaign) for campaign in support.campaigns]
            self._question = counterfactual.Question(support, drawn)
            self._supported = tuple(support.fields)
        self._scorer = dataclasses.replace(scorer, model=copy)
        self._variables = [variable.value for variable in copy.variables]
        self._transform = tf.saved_model.load(str(transform / "transform_fn"))
        self._sequence = {
            "event_time": tf.int64,
            **dict.fromkeys(spec.sequence.categorical, tf.string),
            **dict.fromkeys(spec.sequence_numeric, tf.float32),
        }
        self._customer = dict.fromkeys(spec.customer_categorical, tf.string) | dict.fromkeys(
            spec.customer_numeric, tf.float32
        )
        # One graph of the network, which all signatures call: each would hold its own, some of them two.
        taken = {name: one for name, one in self._taken().items() if name != "key"}
        self._probabilities = _graph(self._answer, input_signature=[taken])

    def _taken(self) -> dict[str, tf.TensorSpec]:
        """Journeys as the signatures take them: sequence fields [batch, steps], all others [batch]."""
        sequence = {name: tf.TensorSpec([None, None], dtype, name) for name, dtype in self._sequence.items()}
        others = self._customer | _GIVEN
        return sequence | {name: tf.TensorSpec([None], dtype, name) for name, dtype in others.items()}

    def signatures(self) -> dict[str, Any]:
        """The functions that tf.saved_model.save takes, traced; influence only where the spec names campaigns."""
        journeys = self._taken()
        strings = tf.TensorSpec([None], tf.string, "examples")
        signatures = {
            "serving_default": _graph(self.padded).get_concrete_function(**journeys),
            "examples": _graph(self.examples).get_concrete_function(examples=strings),
            "evolution": _graph(self.evolution).get_concrete_function(**journeys),
        }
        if self._has_campaigns:
            asked = journeys | {ASKED: tf.TensorSpec([None], tf.string, ASKED)}
            signatures["influence"] = _graph(self.influence).get_concrete_function(**asked)
        return signatures

    def padded(self, **journeys: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores journeys given as rectangular tensors.

        journeys: every sequence field [batch, steps] (event_time int64 UTC microseconds, others string or float32), of
        which the first `length` int64 [batch] count, in any order; customer fields, as_of int64 and key string [batch].
        Returns key as it came and probabilities float32 [batch, horizons].
        """
        ordered = self._oldest_first(journeys, self._inside(journeys))
        return {"key": journeys["key"], "probabilities": self._probabilities(ordered)}

    def evolution(self, **journeys: tf.Tensor) -> dict[str, tf.Tensor]:
        """How the probability grows with the days ahead, and how it moved with each event so far.

        journeys: as `padded` takes them. Returns key; days int64 [batch, d], 0 to the longest horizon, and curve
        float32 [batch, d], P(conversion before so many days), its log survival linear between horizons (a constant
        hazard inside each interval); and, for the r last events that the model sees, oldest first: running_length int64
        [batch], running_time int64 [batch, r], the as_of of each prefix, a microsecond after its last event, and
        running float32 [batch, r, horizons]. A prefix holds no later event. Customer fields stay those of the request.
        """
        ordered = self._oldest_first(journeys, self._inside(journeys))
        rows, ends = self._visible(ordered)
        prefixes = {name: tf.gather(values, rows) for name, values in ordered.items()}
        prefixes |= {"length": ends + 1, "as_of": tf.gather_nd(ordered["event_time"], tf.stack([rows, ends], 1)) + 1}
        batch = tf.shape(journeys["length"], tf.int64)[0]

        def spread(flat: tf.Tensor) -> tf.Tensor:
            return tf.RaggedTensor.from_value_rowids(flat, rows, nrows=batch).to_tensor()

        running = spread(self._probabilities(prefixes))
        curve = self._curve(self._probabilities(ordered))
        days = tf.range(self._spec.horizons_days[-1] + 1, dtype=tf.int64)
        return {
            "key": journeys["key"],
            "days": tf.tile(days[None], [batch, 1]),
            "curve": curve,
            "running_time": spread(prefixes["as_of"]),
            "running_length": tf.math.bincount(rows, minlength=batch, maxlength=batch, dtype=tf.int64),
            "running": tf.ensure_shape(running, [None, None, len(self._spec.horizons_days)]),
        }

    def influence(self, asked_campaign: tf.Tensor, **journeys: tf.Tensor) -> dict[str, tf.Tensor]:
        """The probability with a campaign, without it, and the difference.

        asked_campaign: string [batch], the campaign in question; journeys: as `padded` takes them, whose own campaign
        under question it replaces. Where the spec has assignments, `with` is what `padded` answers where the journey is
        asked about the campaign, `without` where it is asked about none and, if the campaign touched it already, with
        those touches and their consequences gone. Without assignments `with` is the journey as it is, and a journey
        without touches of the campaign has no answer.

        Returns key, campaign, with_campaign, without_campaign, difference: float32 [batch, horizons], NaN where there
        is no answer; reason: string [batch], why not, "" where there is one; claim: string [batch], what the numbers
        may be taken for: "randomised" where lots were drawn over who is treated and the question is not about past
        touches, else "association"; "" where there is no answer.
        """
        ordered = self._oldest_first(journeys | {ASKED: asked_campaign}, self._inside(journeys))
        inside = self._inside(ordered)
        own, owed = tf.zeros_like(inside), tf.zeros_like(inside)
        if self.campaign_column is not None:
            own, owed = self._of_campaign(ordered, asked_campaign)
        past = tf.reduce_any(own, axis=1)
        edited = self._oldest_first(ordered, inside & ~owed)
        if self._question is None:
            known = tf.reduce_any(
                tf.equal(asked_campaign[:, None], tf.constant(self._touchable, tf.string)[None]), axis=1
            )
            reason = tf.where(past, "", counterfactual.NO_TOUCH)
            reason = tf.where(known, reason, counterfactual.NEVER_SEEN)
            claim = tf.fill(tf.shape(asked_campaign), "association")
        else:
            edited |= {ASKED: tf.zeros_like(asked_campaign)}
            features = self._features(ordered)
            ids = {name: features[name] for name in self._supported}
            reason = self._question.reason(asked_campaign, ids, {name: ordered[name] for name in self._supported})
            claim = tf.where(self._question.randomised(asked_campaign) & ~past, "randomised", "association")
        with_it, without = self._probabilities(ordered), self._probabilities(edited)
        answered = tf.equal(reason, "")
        silent = tf.where(answered[:, None], 0.0, float("nan"))
        return {
            "key": journeys["key"],
            "campaign": asked_campaign,
            "with_campaign": with_it + silent,
            "without_campaign": without + silent,
            "difference": with_it - without + silent,
            "claim": tf.where(answered, claim, ""),
            "reason": reason,
        }

    def examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores journeys given as serialized tf.train.Example, string [batch], whose features bear the fields' names.

        as_of is required. Sequence fields are lists as long as event_time; one left out counts as missing throughout,
        and so does a customer field (a journey without event_time is empty). Returns what `padded` does.
        """
        parsing: dict[str, Any] = {
            name: tf.io.RaggedFeature(dtype, value_key=name, row_splits_dtype=tf.int64)
            for name, dtype in self._sequence.items()
        }
        parsing |= {name: tf.io.FixedLenFeature([], dtype, _MISSING[dtype]) for name, dtype in self._customer.items()}
        parsing |= {"as_of": tf.io.FixedLenFeature([], tf.int64), "key": tf.io.FixedLenFeature([], tf.string, "")}
        journeys = tf.io.parse_example(examples, parsing)
        length = journeys["event_time"].row_lengths()
        steps = tf.reduce_max(tf.concat([length, [0]], axis=0))
        shape = tf.stack([tf.constant(-1, tf.int64), steps])
        for name, dtype in self._sequence.items():
            lengths = journeys[name].row_lengths()
            tf.debugging.Assert(
                tf.reduce_all((lengths == length) | (lengths == 0)),
                [f"{name}: expected as many values as event_time has"],
            )
            journeys[name] = journeys[name].to_tensor(_MISSING[dtype], shape=shape)
        return self.padded(length=length, **journeys)

    def _inside(self, journeys: dict[str, tf.Tensor]) -> tf.Tensor:
        """bool [batch, steps]: which places hold an event."""
        length, steps = journeys["length"], tf.shape(journeys["event_time"], tf.int64)[1]
        tf.debugging.assert_non_negative(length, "length: expected 0 or more")
        tf.debugging.assert_less_equal(length, steps, "length: expected no more than the steps that the fields have")
        return tf.sequence_mask(length, steps)

    def _oldest_first(self, journeys: dict[str, tf.Tensor], kept: tf.Tensor) -> dict[str, tf.Tensor]:
        """The journeys with the kept events alone, by time. Equal times keep the order they came in.

        Journeys that are so already, as batch scoring's are, stay as they are: sorting strings would take as long as
        the transform graph.
        """
        times = tf.where(kept, journeys["event_time"], _LAST)
        sequences = {name: journeys[name] for name in self._sequence}

        def by_time() -> dict[str, tf.Tensor]:
            order = tf.argsort(times, axis=1, stable=True)
            return {name: tf.gather(values, order, batch_dims=1) for name, values in sequences.items()}

        ordered = tf.cond(tf.reduce_all(times[:, 1:] >= times[:, :-1]), lambda: sequences, by_time)
        ordered |= {name: journeys[name] for name in self._customer}
        return ordered | {"as_of": journeys["as_of"], "length": tf.reduce_sum(tf.cast(kept, tf.int64), axis=1)}

    def _answer(self, ordered: dict[str, tf.Tensor]) -> tf.Tensor:
        """float32 [batch, horizons] of journeys whose events lie oldest first."""
        return self._scorer.probabilities(self._features(ordered))

    def _features(self, ordered: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The journeys through the transform graph."""
        raw: dict[str, Any] = {name: ordered[name] for name in self._customer} | {"as_of": ordered["as_of"]}
        places = tf.where(tf.reshape(self._inside(ordered), [-1]))[:, 0]  # found once for all fields
        for name in self._sequence:
            events = tf.gather(tf.reshape(ordered[name], [-1]), places)
            raw[name] = tf.RaggedTensor.from_row_lengths(events, ordered["length"], validate=False)
        features: dict[str, tf.Tensor] = self._transform.transform_fn(raw)
        return features

    def _of_campaign(self, ordered: dict[str, tf.Tensor], asked: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """bool [batch, steps] twice: touches of the campaign that the model sees, and these with what came of them."""
        assert self.campaign_column is not None
        consequences = self._spec.assignments.consequences if self._spec.assignments else ()
        others = [ordered[name] for name in self._spec.sequence.categorical if name != self.campaign_column]
        visible = self._visible_events(ordered, self._inside(ordered))
        return counterfactual.of_campaign(ordered[self.campaign_column], asked, visible, others, consequences)

    def _visible_events(self, journeys: dict[str, tf.Tensor], among: tf.Tensor) -> tf.Tensor:
        """bool [batch, steps]: the events among these that a dated model reads: before as_of, inside the lookback."""
        if not isinstance(self._spec, EventsSpec):
            return among
        times, as_of = journeys["event_time"], journeys["as_of"][:, None]
        return among & (times < as_of) & (times >= as_of - self._spec.lookback_us)

    def _visible(self, ordered: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """(row, place) of each journey's last visible events, int64 [events]: as many as the model reads."""
        seen = self._visible_events(ordered, self._inside(ordered))
        position = tf.cumsum(tf.cast(seen, tf.int64), axis=1, exclusive=True)
        if self._spec.first_events is not None:
            seen &= position < self._spec.first_events
        count = tf.reduce_sum(tf.cast(seen, tf.int64), axis=1, keepdims=True)
        places = tf.where(seen & (position >= count - self._spec.sequence.max_events))
        return places[:, 0], places[:, 1]

    def _curve(self, probabilities: tf.Tensor) -> tf.Tensor:
        """float32 [batch, days]: P(conversion before each day), from float32 [batch, horizons]."""
        horizons = [0, *self._spec.horizons_days]
        days = np.arange(horizons[-1] + 1)
        basis = np.stack([np.interp(days, horizons, unit) for unit in np.eye(len(horizons))[1:]])
        survival = tf.math.log1p(-tf.minimum(probabilities, _ALMOST_SURE))
        return 0.0 - tf.math.expm1(tf.matmul(survival, tf.constant(basis, tf.float32)))  # day 0 is 0, not -0


def vocabulary(transform: Path, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Values of categorical fields as transform/features.json has them, by falling frequency, '' left out."""
    fields = json.loads((transform / "features.json").read_text(encoding="utf-8"))
    found = fields["sequence"] | fields["customer"]
    return {name: [value for value in found[name]["vocabulary"] if value != NONE] for name in names}
