"""What commands share beside options: expected errors become sentences, and a stage's help lists its settings."""

import os
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline import describe
from pipeline.errors import ExitCode, PipelineError, Stopped, UsageError
from pipeline.machine import limit_behind
from pipeline.progress import printable
from pipeline.stage import ENSEMBLE, STAGES


class Commands(TyperGroup):
    """Turns expected errors into one or two sentences and their exit code, for every command."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            if any(argument.encode("utf-8", "ignore").decode() != argument for argument in sys.argv):
                raise UsageError("An argument of this command is not UTF-8.", "Rename the file it names.")
            return super().invoke(ctx)
        except Exception as error:
            # What works on artifacts says itself what the machine refused; this is for what is read and written beside.
            expected = error if isinstance(error, PipelineError) else limit_behind(error, ctx.invoked_subcommand or "")
            if expected is None:
                raise
            _tell(printable(str(expected) if isinstance(expected, Stopped) else f"error: {expected}"))
            raise typer.Exit(int(expected.exit_code)) from error
        except KeyboardInterrupt as error:
            _tell("stopped")
            raise typer.Exit(int(ExitCode.STOPPED)) from error


def _tell(text: str) -> None:
    """A last line; where even the log cannot be written any more, the exit code still tells."""
    try:
        typer.echo(text, err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class StageCommand(TyperCommand):
    """A stage's command; its help lists the settings of the stage."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the settings, from their definitions."""
        stage = next(s for s in (*STAGES, ENSEMBLE) if s.name == self.name)
        with formatter.section(f"Settings of [{stage.name}] (--set {stage.name}.KEY=VALUE, or in a recipe)"):
            formatter.write_dl(describe.settings_of(stage.name), col_max=36)
        phases = describe.phase_settings(stage.name)
        if phases:
            with formatter.section(f"Settings of each phase (--set {stage.name}.phases.0.KEY=VALUE)"):
                formatter.write_dl(phases, col_max=36)
        if stage.run_settings:
            with formatter.section("Settings of [run] that this stage uses (--set run.KEY=VALUE)"):
                formatter.write_dl(describe.settings_of("run", stage.run_settings), col_max=36)
