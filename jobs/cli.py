"""What all jobs share on the command line: options, the session, exit codes, the last line."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from jobs.errors import FaceReindexError
from jobs.private import keep_private
from jobs.run_ids import checked_run_id
from jobs.runs.console import Console
from jobs.runs.job_result import Result
from jobs.settings import Settings, load_settings, refuse_credentials

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_COMMON = (
    click.option("--config", "config", type=click.Path(), help="YAML settings file (docs/settings.md)."),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one setting; repeatable."),
    click.option("--run-id", metavar="ID", help="Name this run, or resume the run of this name."),
    click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing."),
    click.option("--json", "as_json", is_flag=True, help="The last line of stdout is one JSON object."),
    click.option("--quiet", is_flag=True, help="No step lines."),
    click.option("--properties-file", help="Spark properties under `python -m` (spark-submit has its own option)."),
)

#: Texts on the command line that name no place; every other one may be an address. (`--set` is the settings' matter.)
NO_PLACES = frozenset({"overrides", "run_id", "subject", "image", "receipts_of", "lawful_basis"})


def job(
    name: str, *, examples: str = "", needs_write: bool = True, starts_spark: bool = True
) -> Callable[[Callable[..., Result]], click.Command]:
    """Make a command of a function `(job, **options) -> Result`, whose message is the last line.

    One that does not start Spark, which takes seconds, has a session as soon as it asks for it.

    A `FaceReindexError` ends with its own exit code, anything else with 1; neither prints a traceback of ours
    unless FACE_REINDEX_TRACEBACK is set.
    """

    def decorate(function: Callable[..., Result]) -> click.Command:
        def run(
            config: str | None,
            overrides: tuple[str, ...],
            run_id: str | None,
            dry_run: bool,
            as_json: bool,
            quiet: bool,
            properties_file: str | None,
            **options: Any,
        ) -> None:
            console, settings = Console(quiet=quiet), None
            # For what is written before, or without, a session, whose properties may say otherwise.
            keep_private()
            try:
                if run_id is not None:
                    checked_run_id(run_id)
                _check_places(click.get_current_context())
                settings = load_settings(config, overrides)
                console = Console(quiet=quiet, log_format=settings.logging.format)
                result = _in_session(
                    name,
                    function,
                    settings,
                    console,
                    run_id,
                    dry_run or not needs_write,
                    starts_spark,
                    dry_run,
                    properties_file,
                    options,
                )
            except FaceReindexError as error:
                _fail(name, console, as_json, error)
            except Exception as error:
                _fail(name, console, as_json, _foreign(error, settings))
            else:
                code = result.exit_code
                if as_json:
                    told = {"job": name, "ok": code == 0, "exit_code": code, "message": result.message}
                    console.json({**told, **result.data})
                else:
                    console.line(f"{name}: {result.message}")
                sys.exit(code)

        command: Callable[..., None] = run
        for option in reversed(_COMMON):
            command = option(command)
        for parameter in getattr(function, "__click_params__", []):
            command.__dict__.setdefault("__click_params__", []).append(parameter)
        text = (function.__doc__ or "").strip() + (f"\n\n\b\nExamples:\n{examples.strip()}" if examples else "")
        return click.command(name, help=text)(command)

    return decorate


def _check_places(context: click.Context) -> None:
    for parameter in context.command.params:
        given = context.params.get(str(parameter.name))
        texts = given if isinstance(given, tuple) else (given,)
        if parameter.name not in NO_PLACES:
            for text in texts:
                if isinstance(text, str):
                    refuse_credentials(text, parameter.opts[0])


def _in_session(  # the one place where a session is opened
    name: str,
    function: Callable[..., Result],
    settings: Settings,
    console: Console,
    run_id: str | None,
    read_only: bool,
    starts_spark: bool,
    dry_run: bool,
    properties_file: str | None,
    options: dict[str, Any],
) -> Result:
    from jobs.runs.record import JobContext
    from jobs.session import check_local, open_session
    from jobs.tables.store import Warehouse

    @cache
    def session() -> SparkSession:
        spark = open_session(f"face-reindex {name}", properties_file, say=console.note)
        if settings.warehouse_is_path:
            check_local(spark, settings.warehouse)
        # Of what is done before, between and after the steps, which say it better.
        spark.sparkContext.setJobDescription(f"face-reindex {name}")
        return spark

    spark = session() if starts_spark else session
    warehouse = Warehouse(
        spark, settings.warehouse, is_path=settings.warehouse_is_path, read_only=read_only, lease_required=True
    )
    return function(JobContext(settings, warehouse, console, run_id, dry_run), **options)


def _foreign(error: Exception, settings: Settings | None) -> FaceReindexError:
    """Say what is safe to say: the text of a foreign exception may hold a path, a name or a row."""
    if os.environ.get("FACE_REINDEX_TRACEBACK"):
        raise error
    from jobs.runs.error_messages import explained

    return explained(error, settings) or FaceReindexError(
        f"an unforeseen {type(error).__name__}.",
        hint="run it again with FACE_REINDEX_TRACEBACK=1 in the environment for the whole of it; "
        "what was committed is kept, and the same --run-id resumes.",
    )


def _fail(name: str, console: Console, as_json: bool, error: FaceReindexError) -> None:
    if os.environ.get("FACE_REINDEX_TRACEBACK"):
        raise error
    console.failed(name, str(error))
    if as_json:
        console.json(
            {
                "job": name,
                "ok": False,
                "exit_code": error.exit_code,
                "error": type(error).__name__,
                "message": str(error),
                "retry_helps": error.retry_helps,
            }
        )
    sys.exit(error.exit_code)


class Count(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic for type checkers only
    """A whole number, which may be written as 3e9."""

    name = "count"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, or a usage error."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number.", param, ctx)
        if not math.isfinite(number) or number < 0 or number != int(number):
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        return int(number)
