//! What is served over gRPC and over net/rpc alike, the key/value store and the
//! animals: how a host calls them, and what a plugin answers over net/rpc. A host that
//! dispenses one of them need not know which protocol it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use outrigger_host::netrpc::Client;
use outrigger_host::{Broker, Channel, Interface, MAX_MESSAGE, MagicCookie, UnsupportedTransport};
use outrigger_plugin::netrpc::Methods;
use outrigger_plugin::{PluginSet, Serve, ServiceSet};
use tonic::{Request, Response, Status};

use crate::kv_file;
use crate::proto::animal::animal_client::AnimalClient;
use crate::proto::animal::animal_server;
use crate::proto::animal::{DESCRIPTORS, SpeakRequest, SpeakResponse};
use crate::proto::kv::kv_client::KvClient;
use crate::proto::kv::{GetRequest, PutRequest};

/// Go's `interface{}`.
pub type Any = outrigger_host::gob::Interface;

/// Go's `map[string]interface{}`.
pub type AnyMap = BTreeMap<String, Any>;

/// The key/value store, whichever protocol the plugin speaks.
#[derive(Debug)]
pub struct KvStore;

/// Calls a key/value store.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum KvStoreClient {
    Grpc(KvClient<Channel>),
    NetRpc(Client),
}

impl Interface for KvStore {
    type Client = KvStoreClient;

    fn grpc(connection: Channel, _: Arc<dyn Broker>) -> Result<Self::Client, UnsupportedTransport> {
        let client = KvClient::new(connection).max_decoding_message_size(MAX_MESSAGE);
        Ok(KvStoreClient::Grpc(client))
    }

    fn netrpc(object: Client, _: Arc<dyn Broker>) -> Result<Self::Client, UnsupportedTransport> {
        Ok(KvStoreClient::NetRpc(object))
    }
}

impl KvStoreClient {
    /// Stores `value` under `key`.
    ///
    /// # Errors
    /// The plugin refuses it, or is gone.
    ///
    /// # Cancel safety
    /// The value may be stored although the future is dropped.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        match self {
            Self::Grpc(client) => {
                let request = PutRequest {
                    key: key.to_owned(),
                    value: value.to_vec().into(),
                };
                client.clone().put(request).await?;
            }
            Self::NetRpc(object) => {
                let arguments = AnyMap::from([
                    ("key".to_owned(), Any::from(key)),
                    ("value".to_owned(), Any::from(value)),
                ]);
                let _: Any = object.call("Plugin.Put", &arguments).await?;
            }
        }
        Ok(())
    }

    /// What is stored under `key`.
    ///
    /// # Errors
    /// Nothing is, or the plugin is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>> {
        match self {
            Self::Grpc(client) => {
                let key = key.to_owned();
                let reply = client.clone().get(GetRequest { key }).await?;
                Ok(reply.into_inner().value.into())
            }
            Self::NetRpc(object) => Ok(object.call("Plugin.Get", key).await?),
        }
    }
}

/// An animal, whichever protocol the plugin speaks.
#[derive(Debug)]
pub struct Animal;

/// Calls an animal.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum AnyAnimal {
    Grpc(AnimalClient<Channel>),
    NetRpc(Client),
}

impl Interface for Animal {
    type Client = AnyAnimal;

    fn grpc(connection: Channel, _: Arc<dyn Broker>) -> Result<Self::Client, UnsupportedTransport> {
        Ok(AnyAnimal::Grpc(AnimalClient::new(connection)))
    }

    fn netrpc(object: Client, _: Arc<dyn Broker>) -> Result<Self::Client, UnsupportedTransport> {
        Ok(AnyAnimal::NetRpc(object))
    }
}

impl AnyAnimal {
    /// What the animal says.
    ///
    /// # Errors
    /// It says nothing, or the plugin is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn speak(&self, loud: bool) -> Result<String> {
        let said = match self {
            Self::Grpc(client) => {
                let request = SpeakRequest { is_loud: loud };
                client.clone().speak(request).await?.into_inner().resp
            }
            Self::NetRpc(object) => {
                let arguments = AnyMap::from([("isLoud".to_owned(), Any::from(loud))]);
                object.call("Plugin.Speak", &arguments).await?
            }
        };
        ensure!(!said.is_empty(), "it says nothing");
        Ok(said)
    }
}

/// The key/value store in files of the working directory.
pub fn kv_methods() -> Methods {
    Methods::new()
        .method("Put", |arguments: AnyMap| async move {
            let (file, value) = put_arguments(&arguments)?;
            let written = tokio::fs::write(file, value).await;
            written.map_err(|error| error.to_string())?;
            Ok::<_, String>(Any::nil())
        })
        .method("Get", |key: String| async move {
            let value = tokio::fs::read(kv_file(&key)?).await;
            value.map_err(|error| error.to_string())
        })
}

fn put_arguments(arguments: &AnyMap) -> Result<(PathBuf, Vec<u8>), String> {
    let nil = Any::nil();
    let argument = |name: &str| arguments.get(name).unwrap_or(&nil);
    let other = |name: &str, wanted: &str| {
        let found = argument(name).name().unwrap_or("<nil>").to_owned();
        format!("argument {name} is a {found}, not {wanted}")
    };
    let key = match (argument("key").name(), argument("key").get::<String>()) {
        (Some("string"), Ok(Some(key))) => key,
        _ => return Err(other("key", "a string")),
    };
    let value = match (argument("value").name(), argument("value").get()) {
        (Some("[]uint8"), Ok(Some(value))) => value,
        _ => return Err(other("value", "bytes")),
    };
    Ok((kv_file(&key)?, value))
}

/// The animals of the playground, and what they say.
const SOUNDS: [(&str, &str); 5] = [
    ("cat", "Meow!"),
    ("dog", "Woof!"),
    ("pig", "Oink!"),
    ("cow", "Moo!"),
    ("horse", "Neigh!"),
];

/// The names of the animals.
pub fn animals() -> impl Iterator<Item = &'static str> {
    SOUNDS.iter().map(|(name, _)| *name)
}

/// What an animal says; its name may end in `-grpc`. Nothing is what no animal says.
pub fn sound(name: &str, loud: bool) -> String {
    let name = name.strip_suffix("-grpc").unwrap_or(name);
    let found = SOUNDS.iter().find(|(known, _)| *known == name);
    let sound = found.map_or("", |(_, sound)| sound);
    match loud {
        true => sound.to_uppercase(),
        false => sound.to_owned(),
    }
}

/// The cookie of an animal's own program. Cat and dog-grpc have those of the
/// playground, the others pairs of ours.
pub fn animal_cookie(name: &str) -> MagicCookie {
    match name {
        "cat" => MagicCookie::new(
            "CAT_PLUGIN",
            "lFLmoCE3ckw6erJxYxcRd6keedUodVMctD3XOGj9bLMYsFZi1Qh0vKEJftppo5ek",
        ),
        "dog-grpc" => MagicCookie::new(
            "DOG_PLUGIN",
            "2ggRd5S9bhHottawB6eXwghiOAhekGORmOfIczh5b1D3AYlmrRWIXdbqwDHDJmjq",
        ),
        name => MagicCookie::new(
            format!("{}_PLUGIN", name.to_uppercase()),
            format!("outrigger-{name}-netrpc"),
        ),
    }
}

/// The whole program of an animal.
pub fn animal_program(name: &'static str) -> ExitCode {
    let set = match name.strip_suffix("-grpc") {
        None => PluginSet::new().netrpc(name, move |_| animal_methods(name)),
        Some(_) => PluginSet::new().grpc(name, move |_| {
            ServiceSet::new()
                .with(animal_server::AnimalServer::new(Sounding(name)))
                .describe(DESCRIPTORS)
        }),
    };
    outrigger_plugin::serve(Serve::new(animal_cookie(name)).offer(1, set))
}

/// An animal over net/rpc.
pub fn animal_methods(name: &'static str) -> Methods {
    Methods::new().method("Speak", move |arguments: AnyMap| async move {
        let loud = match arguments.get("isLoud") {
            None => false,
            Some(value) => match (value.name(), value.get::<bool>()) {
                (None, _) => false,
                (Some("bool"), Ok(Some(loud))) => loud,
                (Some(other), _) => {
                    return Err(format!("argument isLoud is a {other}, not a bool"));
                }
            },
        };
        Ok(sound(name, loud))
    })
}

/// An animal over gRPC.
struct Sounding(&'static str);

#[tonic::async_trait]
impl animal_server::Animal for Sounding {
    async fn speak(
        &self,
        request: Request<SpeakRequest>,
    ) -> Result<Response<SpeakResponse>, Status> {
        let resp = sound(self.0, request.get_ref().is_loud);
        Ok(Response::new(SpeakResponse { resp }))
    }
}
