"""Options of the `serve` command."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline import machine, stopping
from pipeline.options import ClassifierPrecisionOption, DeviceOption, HomeOption
from pipeline.pretrained import DEFAULT_MODEL
from pipeline.progress import Reporter


def command(  # noqa: PLR0917
    models: Annotated[
        list[str] | None, typer.Option("--model", metavar="FOLDER|RUN", help="A sealed classifier, or the run that has "
                                       "one. May be repeated; the page then compares them. Default: "
                                       f"{DEFAULT_MODEL}, also for --lm.")
    ] = None,
    language_model: Annotated[
        str | None, typer.Option("--lm", metavar="FOLDER|RUN", help="A sealed language model that continues texts.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="0.0.0.0: every network of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free; it is printed.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", metavar="FILE", help="One line: the key that requests must bear. "
                                  "Default: STAGED_ULMFIT_API_KEY of the environment, else no key.")
    ] = None,
    request_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=86_400, help="To compute an answer; then 503.")
    ] = 30.0,
    waiting: Annotated[
        int, typer.Option("--max-waiting", metavar="N", min=1, help="Predictions that may wait; more are 503.")
    ] = 128,
    precision: ClassifierPrecisionOption = "auto",
    device: DeviceOption = "auto",
    home: HomeOption = Path(),
) -> None:
    """Answer over HTTP with sealed models: predictions, explanations, generated text, and a page to try them on."""
    from pipeline.serving.limits import Limits
    from pipeline.serving.server import ServeRequest, serve

    stopping.forget()
    limits = Limits(request_s=request_s, waiting=waiting)
    if not models:
        models, language_model = [DEFAULT_MODEL], language_model or DEFAULT_MODEL
    request = ServeRequest(tuple(models), language_model, host, port, api_key_file, limits, precision, device, home)
    with machine.limits_told("serve"):
        serve(request, Reporter())
