"""What tuning found, and which launch config a launch takes. It never times anything: that is `fusetune.bench`'s."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.kernels.autotune.entries import (
        Entry,
        Imported,
        Miss,
        entries_directory,
        export_entries,
        import_entries,
        list_entries,
        read_entry,
        read_export,
        write_entry,
    )
    from fusetune.kernels.autotune.key import MEASUREMENT_POLICY, TuningKey, bucket, key_of, source_hash
    from fusetune.kernels.autotune.lookup import (
        Lookup,
        UsedConfig,
        best_config,
        default_of,
        forced_config,
        forcing,
        forget,
        lookups_of,
        ship_entries,
        tuned_config,
        tuning_mode,
        used_configs,
    )
    from fusetune.kernels.autotune.space import elementwise_space, whole_elementwise_space
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "MEASUREMENT_POLICY",
    "Entry",
    "Imported",
    "Lookup",
    "Miss",
    "TuningKey",
    "UsedConfig",
    "best_config",
    "bucket",
    "default_of",
    "elementwise_space",
    "entries_directory",
    "export_entries",
    "forced_config",
    "forcing",
    "forget",
    "import_entries",
    "key_of",
    "list_entries",
    "lookups_of",
    "read_entry",
    "read_export",
    "ship_entries",
    "source_hash",
    "tuned_config",
    "tuning_mode",
    "used_configs",
    "whole_elementwise_space",
    "write_entry",
]
