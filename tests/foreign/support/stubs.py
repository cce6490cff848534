"""The client's code, generated from the repository's proto while the tests run."""

import atexit
import importlib
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

_HERE = Path(__file__).resolve().parent
PROTO = _HERE.parents[2] / "proto"
_WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def _generate():
    folder = tempfile.TemporaryDirectory(prefix="duelhub-stubs-")
    atexit.register(folder.cleanup)
    status = protoc.main([
        "protoc", f"-I{PROTO}", f"-I{_HERE}", f"-I{_WELL_KNOWN}",
        f"--python_out={folder.name}", f"--grpc_python_out={folder.name}",
        "duelhub/v1/control.proto", "errors.proto",
    ])
    if status != 0:
        raise AssertionError(f"protoc ended with status {status}")
    sys.path.insert(0, folder.name)


_generate()
pb = importlib.import_module("duelhub.v1.control_pb2")
rpc = importlib.import_module("duelhub.v1.control_pb2_grpc")
errors = importlib.import_module("errors_pb2")
