//! A plugin that keeps each value in the file `kv_<key>` of its working directory.
//! go-plugin's own example hosts load it.

use std::process::ExitCode;

use outrigger_example_interface::{KeyValue, KeyValueServer};
use outrigger_plugin::interface::{Code, MethodError};
use outrigger_plugin::{MagicCookie, PluginSet, Serve};

struct Files;

impl KeyValue for Files {
    async fn get(&self, key: String) -> Result<Vec<u8>, MethodError> {
        let value = tokio::fs::read(file(&key)?).await;
        value.map_err(|error| MethodError::new(Code::NotFound, error.to_string()))
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Result<(), MethodError> {
        let written = tokio::fs::write(file(&key)?, value).await;
        written.map_err(|error| MethodError::new(Code::Internal, error.to_string()))
    }
}

/// A key is a part of a file's name, never a path.
fn file(key: &str) -> Result<String, MethodError> {
    match key.is_empty() || key.contains(['/', '\0']) {
        true => Err(MethodError::new(
            Code::InvalidArgument,
            "a key is not empty and has no slash",
        )),
        false => Ok(format!("kv_{key}")),
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("kv", |_| KeyValueServer::new(Files).grpc());
    outrigger_plugin::serve(Serve::new(MagicCookie::new("BASIC_PLUGIN", "hello")).offer(1, set))
}
