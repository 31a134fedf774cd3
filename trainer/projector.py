"""What was learnt of channels, campaigns and every other categorical field, for TensorBoard's projector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from trainer.model import JourneyNetwork

_FIRST = ("(padding)", "(out of vocabulary)")  # ids 0 and 1


def write_embeddings(logs: str, network: JourneyNetwork, vocabulary: Mapping[str, Sequence[str]]) -> None:
    """Writes the vectors of each field and the words they belong to below `logs`, which may be gs://.

    They go into train/, since the projector looks where there are scalars too.

    vocabulary: by field, the words of the ids from 2 on. Padding, which no event has, is left out.
    """
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    place = tf.io.gfile.join(logs, "train")
    tf.io.gfile.makedirs(place)
    config = ProjectorConfig()
    for name, layer in network.embeddings.items():
        words = [*_FIRST, *vocabulary[name]]
        vectors = tf.cast(layer.embeddings.value, tf.float32).numpy()[1 : len(words)]
        _write(
            place,
            f"embedding_{name}.vectors.tsv",
            ("\t".join(f"{number:.6g}" for number in vector) for vector in vectors),
        )
        _write(place, f"embedding_{name}.words.tsv", (" ".join(word.split()) or "(empty)" for word in words[1:]))
        config.embeddings.add(
            tensor_name=name,
            tensor_shape=vectors.shape,
            tensor_path=f"embedding_{name}.vectors.tsv",
            metadata_path=f"embedding_{name}.words.tsv",
        )
    _write(place, "projector_config.pbtxt", text_format.MessageToString(config).splitlines())


def _write(place: str, name: str, lines: Iterable[str]) -> None:
    with tf.io.gfile.GFile(tf.io.gfile.join(place, name), "w") as file:
        file.write("".join(f"{line}\n" for line in lines))
