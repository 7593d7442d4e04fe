"""The fixed part of the OpenAPI document that Cog writes for a predictor, around the schema of its inputs."""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def document(inputs: Json, choices: Mapping[str, Json], *, streaming: bool) -> Json:
    """The OpenAPI 3.0.2 document of a predictor that yields pieces of text.

    Args:
        inputs: the schema of its inputs.
        choices: the enumerations that `inputs` refers to, by name.
        streaming: whether clients may ask for server-sent events.
    """
    schemas = {"Input": inputs, "Output": _OUTPUT, **choices, **_FIXED_SCHEMAS}
    predictions: Json = {
        "description": "Run a single prediction on the model",
        "operationId": "predict_predictions_post",
        "requestBody": {"content": _content(_ref("PredictionRequest"))},
        "responses": {"200": _success(_ref("PredictionResponse")), "422": _VALIDATION_ERROR},
        "summary": "Predict",
    }
    if streaming:
        predictions["x-cog-streaming"] = True
    return {
        "components": {"schemas": schemas},
        "info": {"title": "Cog", "version": "dev"},
        "openapi": "3.0.2",
        "paths": {
            "/": {"get": _simple_get("Root", "root__get")},
            "/health-check": {"get": _simple_get("Healthcheck", "healthcheck_health_check_get")},
            "/predictions": {"post": predictions},
            "/predictions/{prediction_id}/cancel": {"post": _CANCEL},
        },
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _success(schema: Json) -> Json:
    return {"content": _content(schema), "description": "Successful Response"}


def _simple_get(summary: str, operation: str) -> Json:
    return {"operationId": operation, "responses": {"200": _success({})}, "summary": summary}


def _object(title: str, properties: Json) -> Json:
    return {"properties": properties, "title": title, "type": "object"}


def _string(title: str, **more: str) -> Json:
    return {"title": title, "type": "string", **more}


_VALIDATION_ERROR = {"content": _content(_ref("HTTPValidationError")), "description": "Validation Error"}

_CANCEL = {
    "operationId": "cancel_predictions__prediction_id__cancel_post",
    "parameters": [{"in": "path", "name": "prediction_id", "required": True, "schema": _string("Prediction Id")}],
    "responses": {"200": _success({}), "422": _VALIDATION_ERROR},
    "summary": "Cancel",
}

_OUTPUT = {
    "items": {"type": "string"},
    "title": "Output",
    "type": "array",
    "x-cog-array-display": "concatenate",
    "x-cog-array-type": "iterator",
}

_FIXED_SCHEMAS = {
    "PredictionRequest": _object("PredictionRequest", {"id": _string("Id"), "input": _ref("Input")}),
    "PredictionResponse": _object(
        "PredictionResponse",
        {
            "completed_at": _string("Completed At", format="date-time"),
            "created_at": _string("Created At", format="date-time"),
            "error": _string("Error"),
            "id": _string("Id"),
            "input": _ref("Input"),
            "logs": _string("Logs"),
            "metrics": {"title": "Metrics", "type": "object"},
            "output": _ref("Output"),
            "started_at": _string("Started At", format="date-time"),
            "status": _string("Status"),
            "version": _string("Version"),
        },
    ),
    "Status": {
        "description": "An enumeration.",
        "enum": ["starting", "processing", "succeeded", "canceled", "failed"],
        "title": "Status",
        "type": "string",
    },
    "HTTPValidationError": _object(
        "HTTPValidationError", {"detail": {"items": _ref("ValidationError"), "title": "Detail", "type": "array"}}
    ),
    "ValidationError": {
        **_object(
            "ValidationError",
            {
                "loc": {
                    "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                    "title": "Location",
                    "type": "array",
                },
                "msg": _string("Message"),
                "type": _string("Error Type"),
            },
        ),
        "required": ["loc", "msg", "type"],
    },
}
