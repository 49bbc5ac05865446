//! Makes Rust code and descriptors of the .proto; nobody needs protoc.

fn main() -> Result<(), outrigger_build::Error> {
    outrigger_build::compile(&["proto/forecast.proto"])
}
