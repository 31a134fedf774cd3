"""`python -m deploy.serve`: a model behind HTTP, as Vertex AI's containers are asked, or by itself."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from preprocessing.cli import UserError, run

if TYPE_CHECKING:
    import socket

    from deploy.requests import Limits, Routes
    from deploy.shadow import Shadow

_SWITCH_S = 0.0005  # Python's 5 ms would let the model's thread, done with a batch, wait while a request is read
_KEPT_ALIVE_S = 65  # longer than load balancers keep an idle connection, so that they close it, not we in mid-request


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.serve",
        description="Serves a model: POST /predict, /explain; GET /health, /metrics, /model, /docs, and a page at /.",
        epilog="Vertex AI's AIP_HTTP_PORT, AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE and AIP_STORAGE_URI are honoured.",
    )
    env = os.environ
    parser.add_argument(
        "--model",
        default=env.get("AIP_STORAGE_URI"),
        help="the SavedModel: RUN_DIR/model or gs://… (default: AIP_STORAGE_URI)",
    )
    parser.add_argument(
        "--host",
        default="0.0.0.0" if "AIP_HTTP_PORT" in env else "127.0.0.1",
        help="the address to listen at (default: 127.0.0.1; 0.0.0.0 where AIP_HTTP_PORT is set)",
    )
    parser.add_argument(
        "--port", default=env.get("AIP_HTTP_PORT", "8080"), help="0: any free one (default: AIP_HTTP_PORT, or 8080)"
    )
    parser.add_argument(
        "--manifest_sha256",
        metavar="HEX",
        help="what the model's manifest must be, as deploy.upload saw it; any other model is refused (default: any)",
    )
    parser.add_argument("--token_file", help="a file with the token that /predict and /explain ask for (default: none)")
    limits = parser.add_argument_group("limits")
    _count(limits, "--max_body_bytes", 8 << 20, "of one request; more is answered 413")
    _count(limits, "--max_instances", 512, "of one request; more is answered 413")
    _count(limits, "--max_events_per_journey", 2000, "more is an error of that instance, 400")
    _count(limits, "--max_requests", 512, "under way at a time; more is answered 429")
    _count(limits, "--max_queue", 4096, "journeys that wait for the model; more is answered 429")
    limits.add_argument("--timeout_s", type=float, default=10.0, help="for an answer; then 504 (default: %(default)s)")
    limits.add_argument(
        "--drain_s",
        type=float,
        default=5.0,
        help="after SIGTERM: requests are still answered, health says 503 (default: %(default)s)",
    )
    model = parser.add_argument_group("the model's thread")
    _count(model, "--max_batch", 256, "journeys of one model call")
    model.add_argument(
        "--batch_delay_ms",
        type=float,
        default=0.0,
        help="how long a batch waits for more while requests crowd (default: %(default)s)",
    )
    cores = len(os.sched_getaffinity(0))
    _count(model, "--intra_op_threads", cores, "TensorFlow's threads within an operation")
    _count(model, "--inter_op_threads", 1, "TensorFlow's threads across operations")
    shadow = parser.add_argument_group("double run")
    shadow.add_argument("--shadow", metavar="URL", help="the candidate's predict route: each request is mirrored there")
    shadow.add_argument(
        "--shadow_sample", type=float, default=1.0, help="the share of journeys mirrored (default: %(default)s)"
    )
    shadow.add_argument("--shadow_log", metavar="DIR", help="where the pairs go: a directory, or bigquery://…")
    return parser


def _count(group: argparse._ArgumentGroup, flag: str, default: int, what: str) -> None:
    group.add_argument(flag, type=int, default=default, help=f"{what} (default: {default})")


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, listens, loads the model, serves until SIGTERM or Ctrl-C."""
    args = _parser().parse_args(argv)
    _check(args)
    token = _token(args.token_file)
    routes, limits = _routes(), _limits(args)

    from deploy.scorer import read_metadata

    about = read_metadata(args.model, manifest=args.manifest_sha256)
    shadow = _shadow(args, about)

    import uvicorn

    from deploy.app import create_app
    from deploy.draining import DrainingServer
    from deploy.page import router
    from deploy.scorer import Scorer
    from deploy.service import Service
    from deploy.telemetry import log_as_json

    log_as_json()
    sys.setswitchinterval(_SWITCH_S)
    threads = {name: getattr(args, name) for name in ("intra_op_threads", "inter_op_threads")}
    service = Service(
        about,
        lambda: Scorer(args.model, **threads),
        limits,
        token=token,
        max_batch=args.max_batch,
        batch_delay_s=args.batch_delay_ms / 1e3,
    )
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_app(
        service, routes=routes, shadow=shadow, page=router(about), failed=failed, secured=token is not None
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=_KEPT_ALIVE_S,
        timeout_graceful_shutdown=int(limits.timeout_s) + 1,
    )
    server = DrainingServer(config, service.drain, args.drain_s)
    server.run(sockets=[_listening(args.host, int(args.port))])
    if failures:
        raise failures[0]


def _check(args: argparse.Namespace) -> None:
    if not args.model:
        raise UserError("--model: expected RUN_DIR/model or gs://…; or AIP_STORAGE_URI in the environment")
    if not str(args.port).isdecimal() or int(args.port) > 65535:
        raise UserError(f"--port: expected a port, 0 to 65535, got {args.port!r}")
    counts = ("max_body_bytes", "max_instances", "max_events_per_journey", "max_requests", "max_queue", "max_batch")
    for name in (*counts, "intra_op_threads", "inter_op_threads"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name}: expected 1 or more, got {getattr(args, name)}")
    if not 0 < args.timeout_s <= 3600:
        raise UserError(f"--timeout_s: expected seconds above 0, at most 3600, got {args.timeout_s:g}")
    if not 0 <= args.drain_s <= 3600:
        raise UserError(f"--drain_s: expected seconds, 0 to 3600, got {args.drain_s:g}")
    if not 0 <= args.batch_delay_ms <= 1000:
        raise UserError(f"--batch_delay_ms: expected milliseconds, 0 to 1000, got {args.batch_delay_ms:g}")
    if (args.shadow is None) != (args.shadow_log is None):
        raise UserError("--shadow: expected together with --shadow_log: the pairs go there")


def _token(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except OSError as error:
        raise UserError(f"--token_file {path}: cannot read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--token_file {path}: expected a token of ASCII letters") from None
    if len(token) < 16 or any(letter.isspace() for letter in token):
        raise UserError(f"--token_file {path}: expected one token of 16 letters or more, without spaces")
    return token


def _routes() -> Routes:
    from deploy.requests import Routes

    default = Routes()
    given = {
        "AIP_PREDICT_ROUTE": os.environ.get("AIP_PREDICT_ROUTE", default.predict),
        "AIP_HEALTH_ROUTE": os.environ.get("AIP_HEALTH_ROUTE", default.health),
    }
    taken = {"/", "/docs", "/openapi.json", "/redoc", default.explain, default.metrics, default.model}
    for name, route in given.items():
        if not route.startswith("/") or "{" in route or route in taken:
            raise UserError(f"{name}: expected a path of its own such as /predict, got {route!r}")
        taken.add(route)
    return Routes(predict=given["AIP_PREDICT_ROUTE"], health=given["AIP_HEALTH_ROUTE"])


def _limits(args: argparse.Namespace) -> Limits:
    from deploy.requests import Limits

    return Limits(
        max_body_bytes=args.max_body_bytes,
        max_instances=args.max_instances,
        max_events=args.max_events_per_journey,
        max_requests=args.max_requests,
        max_queue=args.max_queue,
        timeout_s=args.timeout_s,
    )


def _shadow(args: argparse.Namespace, about: dict[str, object]) -> Shadow | None:
    if args.shadow is None:
        return None
    from deploy.shadow import Shadow

    return Shadow(args.shadow, args.shadow_log, about, sample=args.shadow_sample)


def _listening(host: str, port: int) -> socket.socket:
    import logging
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there: {error.strerror}") from None
    listener.set_inheritable(True)
    logging.getLogger(__name__).info("listening", extra={"host": host, "port": listener.getsockname()[1]})
    return listener


if __name__ == "__main__":
    run(main)
