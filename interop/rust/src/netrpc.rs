//! The interfaces of the net/rpc tests: the types that cross, how a host calls each,
//! and in [`serve`] what a plugin answers.

pub mod describe;
pub mod http;
pub mod pattern;
pub mod serve;

use std::sync::Arc;

use outrigger_examples::netrpc::{Any, AnyMap};
use outrigger_host::gob::{Gob, Time};
use outrigger_host::netrpc::{CallError, Client, Methods};
use outrigger_host::{Broker, BrokerId, Interface, UnsupportedTransport};

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
