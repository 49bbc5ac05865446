"""Rewrite the committed protobuf messages: python generate.py (needs grpcio-tools 1.76).

The generator's version sets the oldest protobuf runtime that may load the result, which is what
requirements.txt names. The service stubs are written by hand, so that running a plugin needs only
grpcio and protobuf. `outrigger/_generated/host_services.bin` comes from `cargo xtask codegen`.
"""

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROTO = ROOT / "proto"
TARGETS = {
    HERE / "outrigger" / "_generated": [
        "grpc/health/v1/health.proto",
        "grpc_broker.proto",
        "grpc_controller.proto",
        "grpc_stdio.proto",
    ],
    ROOT / "examples" / "python" / "generated": ["animal.proto", "filelister.proto", "hostserve.proto", "kv.proto"],
    ROOT / "interop" / "python" / "generated": ["counter.proto", "grpctest.proto", "kv.proto"],
}


def main() -> int:
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    for folder, protos in TARGETS.items():
        with tempfile.TemporaryDirectory() as scratch:
            # One at a time: the examples have messages of the same names.
            for proto in protos:
                status = protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={scratch}", proto])
                if status != 0:
                    return status
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").write_text('"""Generated protobuf messages."""\n')
            for proto in protos:
                generated = Path(scratch) / proto.replace(".proto", "_pb2.py")
                (folder / generated.name).write_text(generated.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
