"""The spec: read, validated, explained, and expanded to trials."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.spec.design import Trial, factor_path, lay_out, make_trial, varied, without_factors
    from fusetune.bench.spec.load import LoadedSpec, difference, load_spec
    from fusetune.bench.spec.same_training import identity
    from fusetune.bench.spec.schema import schema_text
    from fusetune.bench.spec.source import Source
    from fusetune.bench.spec.spec import AUTO, Data, OptimizerFactory, SearchDesign, Spec
    from fusetune.bench.spec.values import (
        freeze,
        key_id,
        left_out,
        named_levels,
        same_value,
        value_id,
        value_label,
    )
    from fusetune.bench.spec.yaml import dotted
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "AUTO",
    "Data",
    "LoadedSpec",
    "OptimizerFactory",
    "SearchDesign",
    "Source",
    "Spec",
    "Trial",
    "difference",
    "dotted",
    "factor_path",
    "freeze",
    "identity",
    "key_id",
    "lay_out",
    "left_out",
    "load_spec",
    "make_trial",
    "named_levels",
    "same_value",
    "schema_text",
    "value_id",
    "value_label",
    "varied",
    "without_factors",
]
