"""One line in a training script makes it a node's trainer: ``trainer.add_callback(DecafCallback())``.

The model must be a PEFT model with a LoRA adapter. The daemon's settings (``training.trainer = "external"``) say how
long a round is and how to mix; the script decides everything else. It needs a ``decaf-node run`` on the same machine.
Under ``accelerate launch`` with several processes rank 0 speaks to the daemon, and the others follow it (``ranks.py``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from decaf_node.errors import BadSettings, DecafError
from decaf_node.link import TrainerReady, Welcome, decode, encode
from decaf_node.places import find_places
from decaf_node.settings import Settings
from decaf_node.training.base import base_fingerprint
from decaf_node.training.data import Stream
from decaf_node.training.evaluate import Evaluation
from decaf_node.training.exchange import Exchange, Identity, nothing
from decaf_node.training.held_out import Loss
from decaf_node.training.host import Account as HostAccount
from decaf_node.training.host import Evaluator, Labels, TrainerHost
from decaf_node.training.link import DaemonGone, Link, connect, shake_hands, tell_failure
from decaf_node.training.live import LiveAdapter, check_trains, find_adapter, freeze_a
from decaf_node.training.private.demands import external_trainer, wants_privacy
from decaf_node.training.ranks import Ranks, Single, find_ranks
from decaf_node.training.schema import schema_of, schema_parts
from decaf_node.training.session import Budget, Session

SOCKET_VARIABLE = "DECAF_NODE_TRAINER_SOCKET"
FINGERPRINTS = "fingerprints.json"
logger = logging.getLogger(__name__)


class Account(HostAccount, Budget, Protocol):
    """The privacy budget, as host and session need it."""


class DecafCallback(TrainerCallback):
    """Makes a transformers ``Trainer`` the trainer of a node.

    Without ``link`` one is opened to ``socket``, else to $DECAF_NODE_TRAINER_SOCKET, else to the user's own daemon,
    or the service. Without ``evaluate`` the results of the Trainer's own evaluations are passed on. Without
    ``stream`` a restart begins with fresh data order. ``held_out`` returns the loss of some examples that are never
    trained on, for ``security.robust = "score"``; without it neighbours are clipped and not scored. (The built-in
    trainer gives all of them, and the welcome it has had; ``account`` where its steps are private, ``labels`` where its
    loss weighs them.)

    Raises DecafError out of ``Trainer.train``; training ends by itself when the daemon says so or goes away.
    """

    def __init__(
        self,
        socket: Path | None = None,
        *,
        link: Link | None = None,
        welcome: Welcome | None = None,
        evaluate: Evaluator | None = None,
        held_out: Loss | None = None,
        stream: Stream | None = None,
        account: Account | None = None,
        labels: Labels | None = None,
    ) -> None:
        self._socket = socket
        self._link = link
        self._welcome = welcome
        self._evaluate = evaluate
        self._held_out = held_out
        self._stream = stream
        self._account = account
        self._labels = labels
        self._session: Session | None = None
        self._host: TrainerHost | None = None
        self._ranks: Ranks = Single()
        self._logged = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The filter would hide a NaN loss behind the mean of the steps before it.
        args.logging_nan_inf_filter = False
        self._logged = state.global_step
        self._ranks = find_ranks()
        with self._reporting(fatal=True):
            welcome = self._greeted()
            if welcome is None:
                control.should_training_stop = True
                return
            self._host, begin = self._prepare(args, welcome, **kwargs)
            self._ranks.together(control, self._host, begin)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._host is not None:
            self._host.restore_generators()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._host is None:
            control.should_training_stop = True
            return
        self._host.step += 1
        self._ranks.together(control, self._host, partial(self._serve, control, Session.step_done))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        steps, self._logged = state.global_step - self._logged, state.global_step
        if self._host is None or not logs or "loss" not in logs:
            return
        mean = logs["loss"]

        def tell(session: Session) -> bool:
            session.loss_known(mean, steps)
            return False

        self._ranks.together(control, self._host, partial(self._serve, control, tell))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._session is not None and metrics and "eval_loss" in metrics:
            self._session.evaluation_known(_evaluation(metrics, kwargs.get("eval_dataloader")))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._link is not None:
            self._link.close()

    def _greeted(self) -> Welcome | None:
        """Return the daemon's welcome, at every rank; None if the daemon has gone."""
        if self._welcome is not None:
            return self._welcome
        words = self._ranks.share(self._shake_hands)
        if not words:
            return None
        welcome = decode(words.encode())
        assert isinstance(welcome, Welcome)
        return welcome

    def _shake_hands(self) -> str:
        if self._link is None:
            self._link = connect(self._socket or default_socket())
        try:
            return encode(shake_hands(self._link)).decode()
        except DaemonGone:
            return ""

    def _prepare(
        self,
        args: TrainingArguments,
        welcome: Welcome,
        *,
        model: Any,
        optimizer: Any,
        lr_scheduler: Any,
        **_: Any,
    ) -> tuple[TrainerHost, Callable[[], None]]:
        """Return what every rank has, and what begins the leader's session."""
        _check(args, model)
        settings = Settings.model_validate(welcome.settings)
        if wants_privacy(settings.privacy) and self._account is None:
            raise external_trainer()
        live = find_adapter(model)
        check_trains(optimizer, live)
        if settings.round.algorithm == "dlora-fa":
            freeze_a(live)
        spool = Path(welcome.spool)
        base = self._ranks.share(lambda: base_fingerprint(settings.model, spool.parent / FINGERPRINTS))
        parts = schema_parts(settings, live, base)
        identity = Identity(schema_of(parts), base)
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        host = TrainerHost(
            model,
            live,
            optimizer,
            lr_scheduler,
            settings,
            identity,
            batch,
            self._evaluate,
            self._stream,
            self._account,
            self._labels,
        )
        device = str(next(model.parameters()).device)
        ready = TrainerReady(identity.schema, base, live.rank, live.parameters, device, parts, host.own_labels)
        return host, partial(self._begin, host, live, settings, spool, identity, ready)

    def _begin(
        self,
        host: TrainerHost,
        live: LiveAdapter,
        settings: Settings,
        spool: Path,
        identity: Identity,
        ready: TrainerReady,
    ) -> None:
        assert self._link is not None
        before_leaving = nothing if self._account is None else self._account.keep
        exchange = Exchange(live, spool, settings, identity, before_leaving, self._scored_by(settings))
        self._session = Session(self._link, settings.round, exchange, host, budget=self._account)
        with suppress(DaemonGone):  # then the first step stops
            self._session.begin(ready)

    def _serve(self, control: TrainerControl, news: Callable[[Session], bool]) -> None:
        """Give the session some ``news``, which says whether the loss so far is wanted."""
        assert self._session is not None
        if not self._session.stopped:
            try:
                with self._reporting():
                    control.should_log = news(self._session) or control.should_log
            except DaemonGone:
                control.should_training_stop = True
        control.should_training_stop = control.should_training_stop or self._session.stopped

    def _scored_by(self, settings: Settings) -> Loss | None:
        """Return what neighbours are scored by, if they are to be; say where they cannot be."""
        if settings.security.robust != "score":
            return None
        if self._held_out is None:
            logger.warning(
                "security.robust is score, but there is no held-out data here, so neighbours are clipped and not "
                "scored; set data.evaluation or data.evaluation_fraction, or give DecafCallback a held_out loss."
            )
        return self._held_out

    @contextmanager
    def _reporting(self, fatal: bool = False) -> Iterator[None]:
        try:
            yield
        except DecafError as error:
            if self._link is None:  # no daemon, or a rank that does not speak to it
                raise
            tell_failure(self._link, error, fatal and (self._session is None or not self._session.started))
            raise


def default_socket() -> Path:
    """Return where the daemon listens for a trainer: as the environment says, else this user's own or the service."""
    named = os.environ.get(SOCKET_VARIABLE)
    return Path(named) if named else find_places(os.environ).trainer_socket


def _check(args: TrainingArguments, model: Any) -> None:
    if not hasattr(model, "peft_config"):
        raise BadSettings(
            "training.no-adapter", "The model has no LoRA adapter; wrap it with peft.get_peft_model first."
        )
    if args.fsdp or args.deepspeed or os.environ.get("LOCAL_WORLD_SIZE", str(args.world_size)) != str(args.world_size):
        raise BadSettings(
            "training.sharded",
            "Every process of a trainer holds the whole adapter, on one machine: train without FSDP and DeepSpeed.",
        )
    if args.n_gpu > 1:
        raise BadSettings(
            "training.several-devices",
            "A process of the trainer runs on one device: start the script by accelerate launch, one process a device, "
            "or show it one with CUDA_VISIBLE_DEVICES.",
        )


def _evaluation(metrics: dict[str, float], dataloader: Any) -> Evaluation:
    examples = len(dataloader.dataset) if hasattr(getattr(dataloader, "dataset", None), "__len__") else 0
    return Evaluation(metrics["eval_loss"], metrics.get("eval_accuracy"), examples, metrics.get("eval_runtime", 0.0))
