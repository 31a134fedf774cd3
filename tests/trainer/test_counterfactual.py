"""What a journey owes to a campaign, and which questions training can speak to, each by hand."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.counterfactual import NEVER_SEEN, NOT_ASKED, Question, of_campaign
from trainer.schema import RecordSchema
from trainer.support import Support, count_support

SPRING, AUTUMN = "spring", "autumn"


def owed(events, asked=SPRING, consequences=("open", "click"), unseen=()):
    """(touches, touches and consequences) of one journey of (campaign, event type), as places."""
    campaigns = tf.constant([[campaign for campaign, _ in events]])
    kinds = tf.constant([[kind for _, kind in events]])
    visible = tf.constant([[i not in unseen for i in range(len(events))]])
    own, gone = of_campaign(campaigns, tf.constant([asked]), visible, [kinds], consequences)
    return np.flatnonzero(own[0]).tolist(), np.flatnonzero(gone[0]).tolist()


def test_a_consequence_follows_a_touch_bears_no_campaign_and_has_no_other_touch_between():
    events = [
        ("", "open"),  # before any touch
        (SPRING, "sent"),
        ("", "open"),  # its consequence
        ("", "view"),  # no consequence by the spec
        ("", "click"),  # still of the touch
        (AUTUMN, "sent"),
        ("", "open"),  # of autumn's
        (AUTUMN, "open"),
        (SPRING, "open"),  # bears its name: a touch
        ("", "click"),
    ]
    assert owed(events) == ([1, 8], [1, 2, 4, 8, 9])
    assert owed(events, asked=AUTUMN) == ([5, 7], [5, 6, 7])
    assert owed(events, consequences=()) == ([1, 8], [1, 8])
    assert owed(events, asked="winter") == ([], [])


def test_what_the_model_does_not_see_neither_touches_nor_follows():
    events = [(SPRING, "sent"), ("", "open"), (AUTUMN, "sent"), ("", "click")]
    assert owed(events, unseen=(0,)) == ([], [])  # too old: what came of it stays
    assert owed(events, unseen=(2,)) == ([0], [0, 1, 3])
    assert owed(events, unseen=(1, 2, 3)) == ([0], [0])


def test_journeys_of_a_batch_keep_apart_and_none_need_have_an_event():
    campaigns = tf.constant([[SPRING, ""], ["", ""], [AUTUMN, SPRING]])
    kinds = tf.fill([3, 2], "open")
    _, gone = of_campaign(campaigns, tf.constant([SPRING] * 3), tf.ones([3, 2], tf.bool), [kinds], ["open"])
    assert gone.numpy().tolist() == [[True, True], [False, False], [False, True]]
    empty = tf.zeros([2, 0], tf.string)
    own, gone = of_campaign(empty, tf.constant([SPRING] * 2), tf.zeros([2, 0], tf.bool), [empty], ["open"])
    assert own.shape == gone.shape == (2, 0)


def test_reasons_go_from_the_campaign_to_the_customer():
    segment = np.array([[False, False, True, False], [False] * 4])  # of ids 0 to 3
    support = Support(20, (AUTUMN, SPRING), np.array([True, False]), {"segment": segment})
    question = Question(support, [True, False])
    asked = tf.constant(["", "winter", SPRING, AUTUMN, AUTUMN])
    ids = {"segment": tf.constant([2, 2, 2, 2, 3], tf.int64)}
    values = {"segment": tf.constant(["a", "a", "a", "a", "b"])}
    found = [reason.decode() for reason in question.reason(asked, ids, values).numpy()]
    few = "treated by this campaign or held out from it"
    assert found == [
        NOT_ASKED,
        NEVER_SEEN,
        f"training saw fewer than 20 customers {few}",
        "",
        f"training saw fewer than 20 customers with segment = 'b' {few}",
    ]
    assert question.randomised(asked).numpy().tolist() == [False, False, False, True, True]
    assert support.known == (AUTUMN,)


@pytest.fixture
def records(tmp_path):
    """(customer, campaign, treated, segment's id): two customers an arm, one of them twice, and a snapshot."""
    rows = [("a", SPRING, 1, 2), ("b", SPRING, 1, 2), ("c", SPRING, 0, 2), ("d", SPRING, 0, 2)]
    rows += [("a", SPRING, 1, 3), ("a", SPRING, 1, 3), ("c", SPRING, 0, 3), ("d", SPRING, 0, 3)]
    rows += [("a", AUTUMN, 1, 2), ("b", AUTUMN, 1, 2), ("c", AUTUMN, 0, 2), ("c", AUTUMN, 0, 2), ("e", "", -1, 2)]
    path = str(tmp_path / "train-00000-of-00001.tfrecord.gz")
    with tf.io.TFRecordWriter(path, options="GZIP") as writer:
        for customer, campaign, treated, segment in rows:
            example = tf.train.Example()
            feature = example.features.feature
            feature["customer_key"].bytes_list.value.append(customer.encode())
            feature["assigned_campaign"].bytes_list.value.append(campaign.encode())
            feature["days_since_conversion"].float_list.value.append(np.inf)
            feature["treated"].int64_list.value.append(treated)
            feature["segment"].int64_list.value.append(segment)
            writer.write(example.SerializeToString())
    return [path]


def test_support_counts_customers_and_no_rows(records):
    schema = RecordSchema(4, {}, (), {"segment": 4, "asked_campaign": 4}, ())
    found = count_support(records, schema, ["segment"], 2)
    assert found.campaigns == (AUTUMN, SPRING)
    assert found.everyone.tolist() == [False, True]  # autumn held out one customer, twice
    assert found.fields["segment"].tolist() == [[False] * 4, [False, False, True, False]]
    assert count_support(records, schema, [], 1).everyone.tolist() == [True, True]
    nobody = count_support([], schema, ["segment"], 2)
    assert (nobody.campaigns, nobody.fields["segment"].shape) == ((), (0, 4))
