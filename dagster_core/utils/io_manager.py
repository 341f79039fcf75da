"""An I/O manager that keeps each asset's records as JSON under the shared storage folder."""

import json
import os
import tempfile
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_core.utils.storage import storage_dir


class JsonFilesIOManager(dg.ConfigurableIOManager):
    """`<base_dir>/<asset key>/<partition>.json`, or `<base_dir>/<asset key>.json` without partitions.

    Loading several partitions at once gives a dict by partition key.
    """

    base_dir: str = ""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write the records of an asset or of one of its partitions."""
        path = self._path(context, context.partition_key if context.has_partition_key else None)
        records = [_to_json(item) for item in obj] if isinstance(obj, list) else _to_json(obj)
        write_atomically(path, json.dumps(records, ensure_ascii=False, indent=1) + "\n")
        context.add_output_metadata(
            {"path": dg.MetadataValue.path(str(path)), "records": len(obj) if isinstance(obj, list) else 1}
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the records that another asset wrote."""
        if not context.has_asset_partitions:
            return self._read(context, None)
        keys = list(context.asset_partition_keys)
        if len(keys) == 1 and not _wants_mapping(context):
            return self._read(context, keys[0])
        existing = [key for key in keys if self._path(context, key).exists()]
        return {key: self._read(context, key) for key in existing}

    def _read(self, context: dg.InputContext, partition: str | None) -> Any:
        path = self._path(context, partition)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            what = context.asset_key.to_user_string() + (f" partition {partition}" if partition else "")
            raise dg.Failure(f"{what} has not been materialised: {path} does not exist") from None

    def _path(self, context: dg.InputContext | dg.OutputContext, partition: str | None) -> Path:
        base = Path(self.base_dir) if self.base_dir else storage_dir()
        folder = base.joinpath(*context.asset_key.path)
        return folder / f"{partition}.json" if partition else folder.with_suffix(".json")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole, so that a run that dies leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _to_json(item: Any) -> Any:
    return asdict(item) if is_dataclass(item) and not isinstance(item, type) else item


def _wants_mapping(context: dg.InputContext) -> bool:
    """An unpartitioned asset that reads a partitioned one gets every partition, even if there is only one."""
    return not context.has_partition_key
