//! What a plugin does with its host's services, and what must come of it.
//!
//! `HOSTCLIENT_DIR` names a directory where everything is granted. At 127.0.0.1 an
//! echo server is at `HOSTCLIENT_PORT`, an HTTP server that says hello at
//! `HOSTCLIENT_HTTP`, a server that only takes at `HOSTCLIENT_SINK`, and
//! `HOSTCLIENT_LISTEN` is a port to listen on. Of UDP, `HOSTCLIENT_UDP` is a server
//! that echoes, `HOSTCLIENT_FREE` a port where nobody is, and `HOSTCLIENT_BIND` one
//! to bind.

mod commands;
mod datagrams;
mod facts;
mod files;
pub(crate) mod hostserve;
mod network;

use outrigger_plugin::Host;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Checked = Result<(), Error>;

pub(crate) async fn run(host: &Host, kind: &str) -> Checked {
    match kind {
        "files" => files::files(host).await,
        "tree" => files::tree(host).await,
        "large" => files::large(host).await,
        "leases" => files::leases(host).await,
        "quota" => files::quota(host).await,
        "owner" => files::owner(host).await,
        "commands" => commands::commands(host).await,
        "children" => commands::children(host).await,
        "long" => commands::long(host).await,
        "network" => network::network(host).await,
        "http" => network::http(host).await,
        "dropped" => network::dropped(host).await,
        "listen" => network::listen(host).await,
        "datagrams" => datagrams::datagrams(host).await,
        "held" => datagrams::held(host).await,
        "facts" => facts::facts(host).await,
        "refused" => facts::refused(host).await,
        "rate" => facts::rate(host).await,
        other => Err(format!("there is no check `{other}`").into()),
    }
}

fn dir() -> Result<String, Error> {
    Ok(std::env::var("HOSTCLIENT_DIR")?)
}

fn port(variable: &str) -> Result<u16, Error> {
    Ok(std::env::var(variable)?.parse()?)
}
