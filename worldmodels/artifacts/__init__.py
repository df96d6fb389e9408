"""Artifacts: their names and digests, their manifests and files, and their commits."""

from .files import FileSet, Reading, sha256
from .manifest import (
    Artifact,
    Shard,
    config_key,
    contents,
    examined,
    iterations,
    last_evolved,
    load,
    manifest_keys,
    manifests,
    parse_manifest,
    parse_record,
    read_json,
    read_manifest,
    read_record,
    repair_command,
    scores,
    shard_digest,
    stored_files,
    stored_scores,
)
from .names import ITERATION, RUN_NAME, Identity, Name, digest, environment, identity

__all__ = [
    "ITERATION", "RUN_NAME", "Artifact", "FileSet", "Identity", "Name", "Reading", "Shard", "config_key", "contents",
    "digest", "environment", "examined", "identity", "iterations", "last_evolved", "load", "manifest_keys", "manifests",
    "parse_manifest", "parse_record", "read_json", "read_manifest", "read_record", "repair_command", "scores",
    "sha256", "shard_digest", "stored_files", "stored_scores",
]  # fmt: skip
