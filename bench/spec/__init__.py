"""The spec: read, validated, explained, and expanded to trials."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.spec.design import Trial, lay_out, make_trial, varied, without_factors
    from fusetune.bench.spec.factor_names import by_field, field_of, name_of
    from fusetune.bench.spec.load import (
        Form,
        LoadedSpec,
        difference,
        load_gate,
        load_spec,
        resolve,
        text_without,
    )
    from fusetune.bench.spec.same_training import identity
    from fusetune.bench.spec.schema import DIALECT, schema_text
    from fusetune.bench.spec.source import Source
    from fusetune.bench.spec.spec import (
        AUTO,
        DEVICES,
        EXECUTORS,
        MOST_DEVICES,
        PROFILES,
        Data,
        Executor,
        Gate,
        GateMetric,
        OneOf,
        OptimizerFactory,
        Resources,
        SearchDesign,
        Seconds,
        Section,
        Spec,
        finding,
    )
    from fusetune.bench.spec.values import (
        freeze,
        key_id,
        left_out,
        named_levels,
        same_value,
        value_id,
        value_label,
    )
    from fusetune.bench.spec.yaml import Document, dotted, parse_yaml, read_yaml
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "AUTO",
    "DEVICES",
    "DIALECT",
    "EXECUTORS",
    "MOST_DEVICES",
    "PROFILES",
    "Data",
    "Document",
    "Executor",
    "Form",
    "Gate",
    "GateMetric",
    "LoadedSpec",
    "OneOf",
    "OptimizerFactory",
    "Resources",
    "SearchDesign",
    "Seconds",
    "Section",
    "Source",
    "Spec",
    "Trial",
    "by_field",
    "difference",
    "dotted",
    "field_of",
    "finding",
    "freeze",
    "identity",
    "key_id",
    "lay_out",
    "left_out",
    "load_gate",
    "load_spec",
    "make_trial",
    "name_of",
    "named_levels",
    "parse_yaml",
    "read_yaml",
    "resolve",
    "same_value",
    "schema_text",
    "text_without",
    "value_id",
    "value_label",
    "varied",
    "without_factors",
]
