"""Images without labels in a step: who is named, what is learned, what is only counted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_steps import K, Linear, assert_close, make_batch, make_state, options

from jaxgear.data.unlabelled import NO_LABEL, hidden
from jaxgear.training.pseudo_labels import PseudoLabels
from jaxgear.training.steps import train_step

B, U = 4, 4  # labelled images, and images without labels


def negative(keys, images):
    return 255 - images


def step(hide, **choices):
    """One step on B labelled images and U others, whose true classes `hide` turns into labels."""
    batch = make_batch(B + U)
    truth = np.asarray(batch.label[B:])
    batch = batch.replace(label=batch.label.at[B:].set(jnp.array([hide(k) for k in truth])))
    state = make_state(Linear(), batch)
    state = state.replace(totals=type(state.totals).zero(pseudo=True))
    terms = {
        name: choices.pop(name) for name in ("threshold", "weight", "start") if name in choices
    }
    more = options(pseudo_labels=PseudoLabels(**terms), beside=U, **choices)
    after, metrics, _ = train_step(state, batch, **more)
    return state, batch, truth, after, metrics


def probabilities(state, images):
    x = np.asarray(images, np.float32).reshape(len(images), -1) / 255
    return x, np.asarray(jax.nn.softmax(x @ state.params["head"]["kernel"]))


def test_a_step_is_the_gradient_of_the_formula():
    """Sure images teach their augmented view what the network calls the image itself."""
    state, batch, _, _, _ = step(hidden)
    _, plain = probabilities(state, batch.image[B:])
    threshold = float(np.sort(plain.max(1))[1:3].mean())  # half of them are sure
    state, batch, truth, after, metrics = step(
        hidden, threshold=threshold, weight=0.7, augment=negative
    )
    sure, named = plain.max(1) >= threshold, plain.argmax(1)
    assert sure.sum() == 2
    x, probs = probabilities(state, 255 - batch.image)
    targets = jax.nn.one_hot(np.concatenate([batch.label[:B], named]), K)
    weight = np.concatenate([np.full(B, 1 / B), sure * 0.7 / U])
    gradient = x.T @ ((probs - targets) * weight[:, None])
    np.testing.assert_allclose(
        after.params["head"]["kernel"],
        state.params["head"]["kernel"] - 0.1 * gradient,
        *(1e-4, 1e-6),
    )
    pseudo = metrics.pseudo
    assert (pseudo.seen, pseudo.used, pseudo.checked) == (U, 2, 2)
    assert pseudo.right == (named == truth)[sure].sum()
    loss = -np.log(probs[np.arange(B), np.asarray(batch.label[:B])]).sum()
    assert float(metrics.loss) == pytest.approx(loss, rel=1e-5)  # of labelled images alone
    assert float(metrics.count) == B


def test_a_hidden_label_is_counted_and_never_learned():
    """Whatever the hidden labels say, or if there are none, the parameters are the same bits."""
    known, other, none = (
        step(hide, threshold=0.0)
        for hide in (hidden, lambda k: hidden((k + 1) % K), lambda k: NO_LABEL)
    )
    assert_close(known[3].params, other[3].params)
    assert_close(known[3].params, none[3].params)
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), known[0].params, known[3].params)
    assert max(jax.tree.leaves(moved)) > 0
    counts = [(m.pseudo.used, m.pseudo.checked, m.pseudo.right) for *_, m in (known, other, none)]
    assert counts[2] == (U, 0, 0)
    assert counts[0][:2] == counts[1][:2] == (U, U)
    assert counts[0][2] != counts[1][2]


@pytest.mark.parametrize("choices", [{"threshold": 1.1}, {"start": 1}, {"weight": 0.0}])
def test_where_the_term_is_off_only_labelled_images_teach(choices):
    state, batch, _, after, _ = step(hidden, **choices)
    labelled = jax.tree.map(lambda x: x[:B] if x.ndim else x, batch)
    alone, _, _ = train_step(make_state(Linear(), labelled), labelled, **options())
    assert_close(after.params, alone.params, rtol=1e-6, atol=1e-7)
    assert_close(state.params, make_state(Linear(), labelled).params)


def test_parts_of_a_batch_add_up_to_it():
    whole, parts = (step(hidden, threshold=0.0, microbatch=size)[3:] for size in (0, 2))
    assert_close(whole[0].params, parts[0].params, rtol=1e-5, atol=1e-6)
    assert_close(whole[1], parts[1], rtol=1e-5)


def test_the_moving_average_names_the_images():
    """Its variables are those that are tested; they change less from step to step."""
    batch = make_batch(B + U)
    batch = batch.replace(label=batch.label.at[B:].set(-1))
    state = make_state(Linear(), batch, optax.sgd(0.0), average=True)
    flipped = jax.tree.map(lambda x: -x, state.averaged)
    state = state.replace(averaged=flipped, totals=type(state.totals).zero(pseudo=True))
    _, plain = probabilities(state.replace(params=flipped["params"]), batch.image[B:])
    asked = []

    def loss(logits, targets):
        asked.append(targets)
        return optax.softmax_cross_entropy(logits, targets)

    train_step(
        state, batch, classes=K, loss=loss, beside=U, pseudo_labels=PseudoLabels(threshold=0.0)
    )
    np.testing.assert_array_equal(np.asarray(asked[0])[B:].argmax(1), plain.argmax(1))


@pytest.mark.parametrize(
    ("batch_size", "unit", "beside", "rows"),
    [(48, 1, 0.5, 24), (48, 8, 0.5, 24), (48, 16, 0.5, 32), (8, 8, 0.01, 8), (4, 1, 2.0, 8)],
)
def test_images_beside_a_batch_can_be_shared_by_devices_and_parts(batch_size, unit, beside, rows):
    assert PseudoLabels(beside=beside).rows(batch_size, unit) == rows
