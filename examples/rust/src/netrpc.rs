//! What the net/rpc examples and peers share: the types that cross, how a host
//! calls each interface, and the methods that a plugin answers with.
//!
//! [`KvStore`] and [`Animal`] are served over gRPC as well; a host that
//! dispenses them need not know which it is.

pub mod describe;
pub mod http;
pub mod pattern;
pub mod serve;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use outrigger_host::gob::{Gob, Time};
use outrigger_host::netrpc::{CallError, Client, Methods};
use outrigger_host::{
    Broker, BrokerId, Channel, Interface, MAX_MESSAGE, MagicCookie, UnsupportedTransport,
};

use crate::proto::animal::SpeakRequest;
use crate::proto::animal::animal_client::AnimalClient;
use crate::proto::kv::kv_client::KvClient;
use crate::proto::kv::{GetRequest, PutRequest};

/// Go's `interface{}`.
pub type Any = outrigger_host::gob::Interface;

/// Go's `map[string]interface{}`.
pub type AnyMap = BTreeMap<String, Any>;

/// What [`adder`] adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Gob)]
pub struct Pair {
    /// One.
    pub a: i64,
    /// The other.
    pub b: i64,
}

/// The length of some bytes and their sum, which wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Gob)]
pub struct Digest {
    /// How many bytes.
    pub bytes: u64,
    /// Their sum.
    pub sum: u64,
}

/// Asks for bytes on a broker stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Gob)]
pub struct Wanted {
    /// The id to dial.
    #[gob(rename = "ID")]
    pub id: u32,
    /// How many bytes.
    pub bytes: u64,
}

/// What a plugin is to print.
#[derive(Clone, Debug, Default, PartialEq, Eq, Gob)]
pub struct Words {
    /// To stdout.
    pub out: String,
    /// To stderr.
    pub err: String,
}

/// The struct that crosses inside `interface{}`.
#[derive(Clone, Debug, PartialEq, Gob)]
#[gob(name = "main.Shape")]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Go's `int`.
    pub sides: isize,
    /// Any number of words.
    pub tags: Vec<String>,
    /// A pointer.
    pub inner: Option<Box<Shape>>,
    /// A moment.
    pub at: Time,
    /// Anything.
    pub extra: Option<AnyMap>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            name: String::new(),
            sides: 0,
            tags: Vec::new(),
            inner: None,
            at: Time::ZERO,
            extra: None,
        }
    }
}

/// `Plugin.Add`, which either side calls the other back for.
pub fn adder() -> Methods {
    Methods::new().method("Add", |pair: Pair| async move {
        Ok::<i64, String>(pair.a.wrapping_add(pair.b))
    })
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

/// A dispensed object with the broker that its calls need.
#[derive(Clone, Debug)]
pub struct Object {
    /// Calls the object.
    pub client: Client,
    /// Opens further streams.
    pub broker: Arc<dyn Broker>,
}

impl Object {
    async fn any<R: Gob>(&self, method: &str) -> Result<R, CallError> {
        self.client.call(method, &Any::nil()).await
    }
}

macro_rules! interface {
    ($(#[$doc:meta])* $name:ident => $(#[$client_doc:meta])* $client:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        $(#[$client_doc])*
        #[derive(Clone, Debug)]
        pub struct $client(pub Object);

        impl Interface for $name {
            type Client = $client;

            fn netrpc(
                client: Client,
                broker: Arc<dyn Broker>,
            ) -> Result<Self::Client, UnsupportedTransport> {
                Ok($client(Object { client, broker }))
            }
        }
    };
}

interface! {
    /// go-plugin's first example.
    Greeter =>
    /// Greets.
    GreeterClient
}
interface! {
    /// Calls back and forth.
    Callbacks =>
    /// Has the plugin call this host, and calls what the plugin serves.
    CallbacksClient
}
interface! {
    /// Raw streams of the broker.
    Streams =>
    /// Asks for streams; the host accepts or dials them.
    StreamsClient
}
interface! {
    /// Values of all types, errors and slow methods.
    Types =>
    /// Calls with values of all types.
    TypesClient
}
interface! {
    /// Prints and reads stdin.
    Stdio =>
    /// Has the plugin print and read.
    StdioClient
}

impl GreeterClient {
    /// A greeting.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn greet(&self) -> Result<String, CallError> {
        self.0.any("Plugin.Greet").await
    }
}

impl CallbacksClient {
    /// Has the plugin add 20 and 22 with the [`adder`] that this host serves on `id`.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_host(&self, id: BrokerId) -> Result<String, CallError> {
        self.0.client.call("Plugin.CallHost", &id.0).await
    }

    /// The id on which the plugin serves an [`adder`] of its own.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn offer_helper(&self) -> Result<BrokerId, CallError> {
        self.0.any("Plugin.OfferHelper").await.map(BrokerId)
    }
}

impl StreamsClient {
    /// Has the plugin dial `id` and read to the end.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn sum(&self, id: BrokerId) -> Result<Digest, CallError> {
        self.0.client.call("Plugin.Sum", &id.0).await
    }

    /// Has the plugin dial `id` and write `bytes` pattern bytes.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn produce(&self, id: BrokerId, bytes: u64) -> Result<u64, CallError> {
        let wanted = Wanted { id: id.0, bytes };
        self.0.client.call("Plugin.Produce", &wanted).await
    }

    /// The id of a stream that gives back every byte.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn echo(&self) -> Result<BrokerId, CallError> {
        self.0.any("Plugin.Echo").await.map(BrokerId)
    }

    /// Has the plugin dial `id`, get `/` over HTTP and return the body.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn fetch_from_host(&self, id: BrokerId) -> Result<String, CallError> {
        self.0.client.call("Plugin.FetchFromHost", &id.0).await
    }

    /// The id of a stream on which the plugin answers one HTTP request.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn offer_http(&self) -> Result<BrokerId, CallError> {
        self.0.any("Plugin.OfferHTTP").await.map(BrokerId)
    }
}

impl TypesClient {
    /// What the plugin calls the value.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn describe(&self, value: &Any) -> Result<String, CallError> {
        self.0.client.call("Plugin.Describe", value).await
    }

    /// The value as it comes back.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn echo(&self, value: &Any) -> Result<Any, CallError> {
        self.0.client.call("Plugin.Echo", value).await
    }

    /// Fails with `text`.
    ///
    /// # Errors
    /// That, or as [`Client::call`].
    pub async fn fail(&self, text: &str) -> Result<Any, CallError> {
        self.0.client.call("Plugin.Fail", text).await
    }

    /// Takes its time, in milliseconds.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn sleep(&self, millis: i64) -> Result<i64, CallError> {
        self.0.client.call("Plugin.Sleep", &millis).await
    }
}

impl StdioClient {
    /// Prints the words as they are.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn print(&self, words: &Words) -> Result<(), CallError> {
        let _: Any = self.0.client.call("Plugin.Print", words).await?;
        Ok(())
    }

    /// What the plugin found on its stdin.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn read_stdin(&self) -> Result<String, CallError> {
        self.0.any("Plugin.ReadStdin").await
    }
}

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
