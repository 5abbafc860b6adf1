#!/usr/bin/env bash
# pymilvus's query_iterator ends with a syntax error over VARCHAR keys that hold a quote or a backslash.
#
# Guess:  an iterator gives every row whatever the keys hold, since the caller writes no filter.
# Seen:   it makes the next batch's filter by pasting the last key of the batch between quotes, as it is. A key with a
#         quote at the end of a batch ends the walk with a syntax error, and so does one with a backslash. (A filter of
#         one's own, `key > "..."` with both characters escaped and the options iterator and reduce_stop_for_best of
#         query, walks over all.)
# With:   pymilvus 3.0.2, milvus-lite 3.2.2, Python 3.11 (30 November 2026)
# Ours:   serving/pages.py walks by a filter of its own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sed -n '2,10s/^# \{0,1\}//p' "$0"
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q pymilvus==3.0.2 milvus-lite==3.2.2
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'END'
import sys
from pymilvus import DataType, MilvusClient

client = MilvusClient("lite.db")
schema = MilvusClient.create_schema(auto_id=False)
schema.add_field("key", DataType.VARCHAR, max_length=64, is_primary=True)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
index = MilvusClient.prepare_index_params()
index.add_index("vector", index_type="FLAT", metric_type="COSINE")


def walk(key, batch):
    keys = [f"{i:02} {key} {i}" for i in range(20)]
    client.create_collection("t", schema=schema, index_params=index)
    client.insert("t", [{"key": of, "vector": [1.0, 0.0]} for of in keys])
    iterator, found = client.query_iterator("t", batch_size=batch, output_fields=["key"]), []
    try:
        while rows := iterator.next():
            found += [row["key"] for row in rows]
        return "all" if found == keys else f"{len(found)} of 20"
    except Exception as error:
        return f"after {len(found)} of 20: {getattr(error, 'message', error)}"
    finally:
        client.drop_collection("t")


seen = {(key, batch): walk(key, batch) for key in ("plain", '7" single', "AC\\DC") for batch in (5, 50)}
for (key, batch), what in seen.items():
    print(f"{key!r:14} batches of {batch:2}: {what}")
as_before = all((what == "all") == (key == "plain") for (key, batch), what in seen.items() if batch == 5)
sys.exit(0 if as_before else 1)
END
