//! The fourth step: the plugin is connected.

use std::time::Instant;

use outrigger_transport::{BrokerOptions, Side};

use super::shaken::Shaken;
use crate::connected::{Connected, Timings};
use crate::connection::Dial;
use crate::error::{LaunchError, LaunchErrorKind};

/// Connects to a plugin that has shaken hands.
pub(super) async fn connected(shaken: Shaken) -> Result<Connected, LaunchError> {
    let Shaken {
        mut spawned,
        line,
        address,
        security,
        took: handshake,
    } = shaken;
    let began = Instant::now();
    let translator = spawned.launch.translator();
    let settings = &mut spawned.launch.settings;
    let mirror = std::mem::take(settings.mirror());
    let dir = spawned.held.places().dir();
    let dial = Dial {
        address,
        transport: line.transport,
        mux: spawned.launch.mux,
        limit: settings.deadlines.connect,
        max_value: settings.max_value,
        broker: BrokerOptions {
            security,
            sockets: settings.sockets(line.address.network, Some(dir)),
            translator: translator.clone(),
            wait: settings.deadlines.broker,
            ..BrokerOptions::new(Side::Host)
        },
    };
    let connecting = tokio::select! {
        connected = dial.connect(mirror) => connected.map_err(LaunchErrorKind::Connect),
        _ = spawned.held.process().wait() => Err(LaunchErrorKind::ExitedUnreached),
    };
    let (link, tasks) = match connecting {
        Ok(connected) => connected,
        Err(kind) => return Err(spawned.fail(kind).await),
    };
    let settings = spawned.launch.settings;
    Ok(Connected {
        name: spawned.name,
        set: settings.set(line.app_version).unwrap_or_default(),
        line,
        link,
        tasks,
        translator,
        deadlines: settings.deadlines,
        timings: Timings {
            spawn: spawned.took,
            handshake,
            connect: began.elapsed(),
        },
        held: spawned.held,
        visiting: None,
    })
}
