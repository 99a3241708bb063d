"""The OpenAPI 3.1 document of contracts. Pure: its golden copy in docs/ makes every change of the API a visible diff."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from tidegate.contract import Command, area, codec, commands
from tidegate.events import type_name

PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "RFC 9457. `faults` names every place of an invalid request; `request` is the id that stands in the log.",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request": {"type": "string"},
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["at", "why"],
                "properties": {"at": {"type": "string"}, "why": {"type": "string"}},
            },
        },
    },
}


def document(contracts: Sequence[type], prefix: str) -> dict[str, Any]:
    """The document of these contracts, served under `prefix`."""
    every = [command for contract in contracts for command in commands(contract)]
    kinds = [kind for command in every for kind in _kinds(command)]
    found, components = codec.schemas(kinds)
    schema_of = {id(kind): schema for kind, schema in zip(kinds, found, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for command in every:
        paths.setdefault(prefix + command.path, {})[command.verb.lower()] = _operation(command, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tidegate", "version": "1"},
        "security": [{"key": []}],
        "tags": [{"name": area(contract), "description": inspect.getdoc(contract) or ""} for contract in contracts],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {**components, "Problem": PROBLEM_SCHEMA},
        },
    }


def _kinds(command: Command) -> list[Any]:
    kinds = [command.parameters[name].annotation for name in (*command.path_parameters, *command.query_parameters)]
    if command.body and not command.body.raw:
        kinds.append(command.body.type)
    return [*kinds, command.returns]


def _operation(command: Command, schema_of: dict[int, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": command.name,
        "summary": command.summary,
        "description": command.doc,
        "tags": [command.area],
        "parameters": [
            {
                "name": name,
                "in": "path" if name in command.path_parameters else "query",
                "required": command.parameters[name].default is inspect.Parameter.empty,
                "schema": schema_of[id(command.parameters[name].annotation)],
            }
            for name in (*command.path_parameters, *command.query_parameters)
        ],
        "responses": _responses(command, schema_of[id(command.returns)]),
        "x-scope": command.scope.name.lower(),
    }
    if command.emits:
        operation["x-emits"] = [type_name(kind) for kind in command.emits]
    if body := command.body:
        schema = {"type": "string", "format": "binary"} if body.raw else schema_of[id(body.type)]
        operation["requestBody"] = {"required": body.required, "content": {body.media.type: {"schema": schema}}}
    return operation


def _responses(command: Command, schema: dict[str, Any]) -> dict[str, Any]:
    refused = {
        "description": "refused",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    content = {"application/json": {"schema": schema}}
    if command.streams:
        return {"101": {"description": "a WebSocket of JSON messages", "content": content}, "default": refused}
    done = {"200": {"description": "done", "content": content}}
    if command.long:
        done["202"] = {"description": "goes on; asked for with `Prefer: respond-async`", "content": {}}
    return {**done, "default": refused}
