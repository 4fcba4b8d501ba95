"""The JSON Schema of a spec, for editors: pydantic's schema, plus factors and profiles."""

from __future__ import annotations

import copy
import json
from typing import Any

from fusetune.bench.spec.spec import Data, Model, Spec, Train

DIALECT = "http://json-schema.org/draft-07/schema#"


def spec_schema() -> dict[str, Any]:
    """Return the schema that editors complete and check specs with."""
    schema = Spec.model_json_schema(ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs")
    for name, section in (("Data", Data), ("Model", Model)):
        known = list(section.model_fields)
        definitions[name]["if"] = {"not": {"required": ["factory"]}}
        definitions[name]["then"] = {"propertyNames": {"enum": known}, "required": ["name"]}
    _leave_keys_to_factories(definitions["Data"])
    _accept_bare_schedule_names(definitions)
    _accept_bare_references(definitions)
    schema["properties"]["factors"] = _factors(definitions)
    schema["properties"]["configurations"] = _configurations(definitions)
    gated = definitions["Gate"]["properties"]
    gated["configurations"] = {
        "allOf": [{"$ref": "#/properties/configurations"}],
        "description": gated["configurations"]["description"],
    }
    schema["properties"]["profiles"] = _profiles(schema, definitions)
    return {"$schema": DIALECT, **schema, "definitions": definitions}


def schema_text() -> str:
    """Return the schema as it stands in `specs/spec.schema.json`."""
    return json.dumps(spec_schema(), indent=2) + "\n"


def _leave_keys_to_factories(data: dict[str, Any]) -> None:
    """Give a folder's keys their types only beside a data set's name: a factory may use them differently."""
    properties, typed = data["properties"], data["then"].setdefault("properties", {})
    for key in ("labels", "size"):
        typed[key] = properties[key]
        properties[key] = {"description": properties[key]["description"]}


def _accept_bare_schedule_names(definitions: dict[str, Any]) -> None:
    names = definitions["Schedule"]["properties"]["name"]
    definitions["Train"]["properties"]["schedule"] = {"anyOf": [names, {"$ref": "#/definitions/Schedule"}]}


def _accept_bare_references(definitions: dict[str, Any]) -> None:
    """Accept a name, a factory's reference, or a mapping with a factory."""
    optimizer = definitions["Train"]["properties"]["optimizer"]
    reference = definitions["OptimizerFactory"]["properties"]["factory"]
    bare = {"type": "string", "pattern": reference["pattern"]}
    optimizer["anyOf"] = [*optimizer.pop("oneOf"), bare]


# What an object among the factors must be. None of it applies to lists.
_RANGE: dict[str, Any] = {
    "properties": {"low": {"type": "number"}, "high": {"type": "number"}, "log": {"type": "boolean"}},
    "required": ["low", "high"],
    "additionalProperties": False,
}


def _factors(definitions: dict[str, Any]) -> dict[str, Any]:
    """Describe factors: any field of train, model or data with a list of that field's values, or a range to search."""
    properties: dict[str, Any] = {}
    for section in (Train, Model, Data):
        name = section.__name__
        for field in definitions[name]["properties"]:
            item = {"$ref": f"#/definitions/{name}/properties/{field}"}
            values = {"type": ["array", "null", "object"], "items": item, "minItems": 1, **_RANGE}
            properties[f"{name.lower()}.{field}"] = values
            properties.setdefault(field, values)
    description = "a field of train, model or data (dotted where unclear) -> the values to try"
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": {"type": ["array", "null", "object"], **_RANGE},
    }


def _configurations(definitions: dict[str, Any]) -> dict[str, Any]:
    """Describe configurations: any field of train, model or data with a value of that field, or a list of values."""
    properties: dict[str, Any] = {}
    for section in (Train, Model, Data):
        name = section.__name__
        for field in definitions[name]["properties"]:
            item = {"$ref": f"#/definitions/{name}/properties/{field}"}
            values = {"if": {"type": "array"}, "then": {"items": item, "minItems": 1}, "else": item}
            properties[f"{name.lower()}.{field}"] = values
            properties.setdefault(field, values)
    return {
        "type": ["array", "null"],
        "minItems": 1,
        "description": Spec.model_fields["configurations"].description,
        "items": {"type": "object", "properties": properties},
    }


def _profiles(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Describe profiles: a spec of which any part may be missing."""
    partial = {name: copy.deepcopy(body) for name, body in definitions.items()}
    for body in partial.values():
        body.pop("required", None)
        body.get("then", {}).pop("required", None)
    for name, body in partial.items():
        definitions[f"Partial{name}"] = _refer_to_partials(body)
    properties = {
        key: _refer_to_partials(copy.deepcopy(value))
        for key, value in schema["properties"].items()
        if key != "profiles"
    }
    definitions["Profile"] = {"type": "object", "properties": properties, "additionalProperties": False}
    one = {"$ref": "#/definitions/Profile"}
    description = "merged over the spec for the device type in use"
    return {
        "type": "object",
        "description": description,
        "properties": {"cpu": one, "cuda": one},
        "additionalProperties": False,
    }


def _refer_to_partials(node: Any) -> Any:
    """Point every reference below `node` to the partial twin."""
    if isinstance(node, dict):
        return {
            key: value.replace("#/definitions/", "#/definitions/Partial")
            if key == "$ref"
            else _refer_to_partials(value)
            for key, value in node.items()
        }
    return [_refer_to_partials(item) for item in node] if isinstance(node, list) else node
