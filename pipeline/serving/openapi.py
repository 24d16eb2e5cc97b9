"""The OpenAPI document, made from the definitions that check the bodies."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from pipeline import __version__
from pipeline.serving import bodies
from pipeline.serving.models import Models

_REFUSALS = {
    400: "The body is not JSON in UTF-8.", 401: "A key is needed.", 404: "There is no such model.",
    408: "The body took too long to arrive.", 413: "The body is too large.",
    415: "The body is not application/json.", 422: "The body is not as described.",
    500: "The model could not answer.", 503: "Too many requests wait, or the answer took too long: try again later.",
}
_OF_BODIES = (400, 404, 408, 413, 415, 422, 500, 503)


def document(models: Models, needs_key: bool) -> dict[str, Any]:
    """What this server answers, as OpenAPI 3.1."""
    posts: dict[str, tuple[str, type[BaseModel], type[BaseModel]]] = {
        "/predict": ("Class and probabilities of texts.", bodies.PredictBody, bodies.PredictAnswer),
        "/explain": ("The words that made a text's class.", bodies.ExplainBody, bodies.ExplainAnswer),
    }
    if models.language_model is not None:
        posts["/generate"] = ("Continue a prompt.", bodies.GenerateBody, bodies.GenerateAnswer)
    gets: dict[str, tuple[str, type[BaseModel]]] = {
        "/health": ("Is the server up?", bodies.HealthAnswer),
        "/models": ("What is served.", bodies.ModelsAnswer),
    }
    used: list[tuple[type[BaseModel], JsonSchemaMode]] = [(bodies.ErrorAnswer, "serialization")]
    for _, body, answer in posts.values():
        used += [(body, "validation"), (answer, "serialization")]
    used += [(answer, "serialization") for _, answer in gets.values()]
    refs, definitions = models_json_schema(used, ref_template="#/components/schemas/{model}")
    schemas = {model: ref for (model, _), ref in refs.items()}
    error = {"application/json": {"schema": schemas[bodies.ErrorAnswer]}}
    refused = {str(status): {"description": text, "content": error} for status, text in _REFUSALS.items()}
    secret = {"401": refused["401"]} if needs_key else {}
    paths: dict[str, Any] = {}
    for path, (summary, body, answer) in posts.items():
        good = {"description": summary, "content": {"application/json": {"schema": schemas[answer]}}}
        paths[path] = {"post": {
            "summary": summary, "operationId": path[1:],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schemas[body]}}},
            "responses": {"200": good, **{str(status): refused[str(status)] for status in _OF_BODIES}, **secret},
        }}
    for path, (summary, answer) in gets.items():
        good = {"description": summary, "content": {"application/json": {"schema": schemas[answer]}}}
        paths[path] = {"get": {
            "summary": summary, "operationId": path[1:],
            "responses": {"200": good, **(secret if path != "/health" else {})},
        }}
    text = {"text/plain": {"schema": {"type": "string"}}}
    paths["/metrics"] = {"get": {
        "summary": "Counters for Prometheus.", "operationId": "metrics",
        "responses": {"200": {"description": "Prometheus' text format.", "content": text}, **secret},
    }}
    _name_models(definitions["$defs"], models)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "staged-ulmfit", "version": __version__, "description": "Sealed models behind HTTP."},
        "paths": paths, "components": {"schemas": definitions["$defs"]},
    }
    if needs_key:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in paths.items():
            if path != "/health":
                next(iter(operations.values()))["security"] = [{"key": []}]
    return found


def _name_models(schemas: dict[str, Any], models: Models) -> None:
    """Say which names and labels there are."""
    labels = sorted({label for bundle in models.classifiers.values() for label in bundle.labels})
    for body in ("PredictBody", "ExplainBody"):
        for field, values in (("model", list(models.classifiers)), ("label", labels)):
            if field in schemas[body]["properties"]:
                schemas[body]["properties"][field]["anyOf"][0]["enum"] = values
