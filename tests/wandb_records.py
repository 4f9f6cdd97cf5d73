"""What an offline record of Weights & Biases holds, read from its file without the service."""

import json
import struct

BLOCK, HEADER = 32 * 1024, struct.Struct("<IHB")


def records(folder):
    """The protobuf records of the offline runs under a folder, the oldest first."""
    return [record for file in sorted(folder.glob("**/*.wandb")) for record in _records(file)]


def _records(file):
    """A log of fragments in blocks, after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole, found = file.read_bytes(), 7, b"", []
    while place + HEADER.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER.size:
            place += left
            continue
        _, length, kind = HEADER.unpack_from(data, place)
        place += HEADER.size
        whole += data[place : place + length]
        place += length
        if kind in (1, 4):  # whole, or the last fragment
            found.append(Record.FromString(whole))
            whole = b""
    return found


def rows(folder):
    """The logged rows; a key in parts is joined by dots."""
    history = [record.history.item for record in records(folder) if record.HasField("history")]
    return [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in one} for one in history]
