"""The generated protobuf messages; `python proto/generate.py` makes them, a test compares."""
