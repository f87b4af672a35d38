"""Which weights a training delivers, and what is measured of them. Keras 3 API only."""

from dataclasses import dataclass

from hemotune.training import averages
from hemotune.training.fit import Data, Fit
from hemotune.training.inputs import Floats, Integers
from hemotune.training.observer import Seen, hidden_layers, score
from hemotune.training.records import (
    Averages,
    Delivery,
    Epoch,
    Health,
    HiddenLayer,
    Keep,
    Scores,
)
from hemotune.training.resume import LAST_EPOCHS, copy_of_weights

OTHER: dict[Averages, Averages] = {"as_trained": "recomputed", "recomputed": "as_trained"}


@dataclass(frozen=True)
class Delivered:
    """The weights that the network has now: how they were chosen, and what they do."""

    epoch: Epoch
    health: Health
    validation: Seen
    other_averages: Integers  # class of each validation image with other averages: (n,)
    features: Floats  # of the training images, as in Seen


@dataclass(frozen=True)
class Snapshot:
    """The weights of a network after an epoch, with averages as trained."""

    epoch: Epoch
    weights: list[Floats]


def deliver(fit: Fit, keep: Keep) -> Delivered:
    """Set the network of a finished fit to the epoch and the averages that are delivered.

    Args:
        keep: the last epoch, or the one of the lowest validation loss; the averages are those with
            which the fit's epochs were validated.
    """
    snapshots: dict[Keep, Snapshot] = {
        "last": Snapshot(fit.course.history[-1], copy_of_weights(fit.network)),
        "best": Snapshot(fit.course.best, fit.course.best_weights),
    }
    delivered, given = snapshots[keep], fit.plan.averages
    # Often the last epoch is the best one, and is shown once.
    by_epoch = {snapshot.epoch.epoch: snapshot for snapshot in snapshots.values()}
    seen = {number: see_otherwise(fit, snapshot) for number, snapshot in by_epoch.items()}
    deliveries = [
        Delivery(keep=kept, averages=kind, epoch=snapshot.epoch.epoch, validation=scores)
        for kept, snapshot in snapshots.items()
        for kind, scores in {
            given: validated(fit, snapshot.epoch),
            OTHER[given]: scores_of(seen[snapshot.epoch.epoch], fit.data, fit.data.validation),
        }.items()
    ]
    load(fit, delivered, given)
    only = not averages.normalizations(fit.network)
    other = (
        seen[delivered.epoch.epoch] if given == "as_trained" or only else see_again(fit, delivered)
    )
    validation = fit.seen.get(delivered.epoch.epoch) or fit.observer.see(fit.data.validation)
    train = fit.observer.see(fit.data.train)
    health = Health(
        hidden=[
            HiddenLayer(name=layer.name, units=values.shape[1], dead=dead_units(values))
            for layer, values in zip(hidden_layers(fit.network), train.hidden, strict=True)
        ],
        train=scores_of(train, fit.data, fit.data.train),
        fit_accuracy=delivered.epoch.accuracy,
        deliveries=deliveries,
        delivered_epoch=delivered.epoch.epoch,
        last_epochs=[epoch.validation_accuracy for epoch in fit.course.history[-LAST_EPOCHS:]],
        other_averages=scores_of(other, fit.data, fit.data.validation),
    )
    return Delivered(delivered.epoch, health, validation, other.predicted, train.features)


def dead_units(activations: Floats) -> int:
    """Return how many units are zero on all images: of (n, units)."""
    return int((activations <= 0).all(axis=0).sum())


def see_otherwise(fit: Fit, snapshot: Snapshot) -> Seen:
    """Show the validation images to a snapshot with the averages that are not delivered."""
    if not averages.normalizations(fit.network) and snapshot.epoch.epoch in fit.seen:
        return fit.seen[snapshot.epoch.epoch]  # frozen ones, or none: there are no others
    load(fit, snapshot, OTHER[fit.plan.averages])
    return fit.observer.see(fit.data.validation)


def load(fit: Fit, snapshot: Snapshot, kind: Averages) -> None:
    """Set the network to a snapshot with averages of that kind."""
    fit.network.set_weights(snapshot.weights)
    if kind == "recomputed":
        fit.recompute(snapshot.epoch.epoch)


def see_again(fit: Fit, delivered: Snapshot) -> Seen:
    """Show the validation images to a network with averages from other training images."""
    own = averages.read(fit.network)
    fit.recompute(delivered.epoch.epoch, draw=2)
    seen = fit.observer.see(fit.data.validation)
    averages.write(fit.network, own)
    return seen


def validated(fit: Fit, epoch: Epoch) -> Scores:
    """Return the validation scores of an epoch as the fit recorded them."""
    images = len(fit.data.validation)
    return Scores(loss=epoch.validation_loss, accuracy=epoch.validation_accuracy, images=images)


def scores_of(seen: Seen, data: Data, rows: Integers) -> Scores:
    """Return the scores of what was seen of the images in `rows`."""
    loss, accuracy = score(seen.probabilities, data.labels[rows])
    return Scores(loss=loss, accuracy=accuracy, images=len(rows))
