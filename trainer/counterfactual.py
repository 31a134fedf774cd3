"""Journeys as they would be without a campaign, and whether there is an answer at all: pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.support import Support

NOT_ASKED = "no campaign was asked about"
NEVER_SEEN = "training saw no campaign of this name"
NO_TOUCH = "the journey holds no event of this campaign before as_of"


def of_campaign(
    campaigns: tf.Tensor,
    asked: tf.Tensor,
    visible: tf.Tensor,
    values: Sequence[tf.Tensor],
    consequences: Sequence[str],
) -> tuple[tf.Tensor, tf.Tensor]:
    """The events that a journey owes to a campaign, where it has touches of it that the model sees.

    campaigns: string [batch, steps], of events oldest first, "" for none; asked: string [batch]; visible: bool [batch,
    steps], the events that the model sees; values: other categorical fields, string [batch, steps]; consequences: their
    values that tell what came of a touch.
    Returns bool [batch, steps] twice: the touches, visible events that bear the campaign; and the touches with their
    consequences, the visible events that bear no campaign, have a value in `consequences`, and follow a touch with no
    other campaign's touch between.
    """
    touch = visible & tf.not_equal(campaigns, "")
    own = touch & tf.equal(campaigns, asked[:, None])
    if not consequences:
        return own, own
    # Numbered by the touch that came last, all events of one number belong to that touch's campaign, or to none.
    number = tf.cumsum(tf.cast(touch, tf.int64), axis=1)
    batch, steps = tf.unstack(tf.shape(campaigns, tf.int64))
    segment = number + (steps + 1) * tf.range(batch)[:, None]
    owned = tf.math.unsorted_segment_max(tf.cast(own, tf.int32), segment, batch * (steps + 1))
    after_own = tf.gather(owned, segment) > 0
    known = tf.constant(list(consequences), tf.string)
    told = tf.zeros_like(visible)
    for field in values:
        told |= tf.reduce_any(tf.equal(field[..., None], known), axis=-1)
    return own, own | (visible & ~touch & told & after_own)


class Question:
    """What training can say of the campaigns that were assigned to customers."""

    def __init__(self, support: Support, randomised: Sequence[bool]) -> None:
        """randomised: for each of support.campaigns, whether lots were drawn over who was treated."""
        self._support = support
        self._campaigns = tf.constant(support.campaigns, tf.string, [len(support.campaigns)])
        # a last place of its own for a campaign that training never saw
        self._randomised = np.append(np.asarray(randomised, bool), False)
        self._everyone = np.append(support.everyone, False)
        self._fields = {name: np.pad(enough, ((0, 1), (0, 0))) for name, enough in support.fields.items()}

    def randomised(self, asked: tf.Tensor) -> tf.Tensor:
        """bool [batch]: whether lots were drawn over who is treated by the campaign asked about, string [batch]."""
        return tf.gather(tf.constant(self._randomised), self._place(asked))

    def reason(self, asked: tf.Tensor, ids: dict[str, tf.Tensor], values: dict[str, tf.Tensor]) -> tf.Tensor:
        """Why there is no answer, string [batch]; "" where there is one.

        asked: string [batch]. Of each customer field that counts, ids int64 [batch] as transformed and values string
        [batch] as they came, which the reason names.
        """
        place, least = self._place(asked), self._support.minimum
        whom = " treated by this campaign or held out from it"
        reason = tf.fill(tf.shape(asked), "")
        for name in reversed(self._fields):
            enough = tf.gather_nd(tf.constant(self._fields[name]), tf.stack([place, ids[name]], axis=1))
            told = tf.strings.join(
                [f"training saw fewer than {least} customers with {name} = '", values[name], "'", whom]
            )
            reason = tf.where(enough, reason, told)
        everyone = tf.gather(tf.constant(self._everyone), place)
        reason = tf.where(everyone, reason, f"training saw fewer than {least} customers{whom}")
        reason = tf.where(tf.less(place, len(self._support.campaigns)), reason, NEVER_SEEN)
        return tf.where(tf.equal(asked, ""), NOT_ASKED, reason)

    def _place(self, asked: tf.Tensor) -> tf.Tensor:
        """int64 [batch]: the campaign's place among those that training saw; their number where it is none of them."""
        found = tf.equal(asked[:, None], self._campaigns[None])
        none = tf.ones_like(found[:, :1])
        return tf.argmax(tf.cast(tf.concat([found, none], axis=1), tf.int32), axis=1)
