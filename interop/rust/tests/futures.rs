//! Every public future of the libraries can be spawned: this compiles only if
//! it is `Send`.
#![allow(dead_code)] // To compile is all that most of this is for.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use outrigger_host::{Attach, Interface, Launch, RunningPlugin, stop_managed};
use outrigger_plugin::host::{
    Child, Clock, Command, Dir, Env, File, Fs, HttpRequest, Listener, Log, LogLevel, NetworkAccess,
    OpenOptions, Processes, ReadDir, Session, Ticks, UdpSocket, Watch,
};
use outrigger_plugin::{
    Host, HostServe, HostServeFile, PluginContext, Serve, ServeLimits, ServiceSet, TestPlugin,
    serve_for_test,
};
use outrigger_services::AuditReceiver;
use outrigger_transport::interface::{GrpcCaller, NetRpcCaller};
use outrigger_transport::netrpc::{self, Budget, Client, HostSession, Methods, PluginSession};
use outrigger_transport::process::ProcessHandle;
use outrigger_transport::{
    BoundListener, Broker, Channel, ChannelOptions, Draining, Fate, GrpcBroker, OwnedTask, Router,
    Security, Sockets, Stream, connect, process, serve_connection, yamux,
};
use outrigger_wire::{Address, BrokerId};
use tokio_util::sync::CancellationToken;

const ID: BrokerId = BrokerId(1);
const WAIT: Duration = Duration::ZERO;

fn send(_: impl Send) {}

fn host<I: Interface>(
    plugin: &RunningPlugin,
    launch: Launch,
    attach: Attach,
    services: &dyn outrigger_host::HostServices,
) {
    send(launch.start());
    send(attach.connect());
    send(plugin.dispense::<I>(""));
    send(plugin.client::<I>());
    send(plugin.serve(services));
    send(plugin.ping());
    send(plugin.health(WAIT));
    send(plugin.stop());
    send(plugin.stop_within(WAIT));
    send(plugin.kill());
    send(plugin.wait());
    send(stop_managed());
}

fn many<I: Interface>(
    settings: outrigger::Settings,
    plugins: &outrigger::Host,
    plugin: &outrigger::Plugin,
    events: &mut outrigger::Events,
) where
    I::Client: Send,
{
    send(settings.host(""));
    send(plugins.start(""));
    send(plugins.start_all());
    send(plugins.stop(""));
    send(plugins.restart(""));
    send(plugins.reload(""));
    send(plugins.rescan());
    send(plugins.client::<I>(""));
    send(plugins.of_type::<I>());
    send(plugin.start());
    send(plugins.shutdown(WAIT));
    let place = outrigger::ExpositionPlace::File("".into());
    send(plugins.metrics().serve(place));
    send(events.next());
}

fn services(events: &mut AuditReceiver) {
    send(events.recv());
}

fn plugin(serve: Serve, other: Serve, context: &PluginContext, test: TestPlugin, channel: Channel) {
    send(serve.run());
    send(serve_for_test(other, true));
    send(test.stop());
    send(context.host());
    send(context.service(""));
    send(context.config_changed(""));
    send(context.host_serve(1));
    send(context.stopping());
    send(context.host_on(1));
    send(Host::over(channel));
}

fn plugin_files(fs: &Fs, dir: &mut Dir, listing: &mut ReadDir, watch: &mut Watch) {
    send(fs.open(""));
    send(fs.create(""));
    send(fs.open_dir(""));
    send(fs.read(""));
    send(fs.read_to_string(""));
    send(fs.write("", ""));
    send(fs.append("", ""));
    send(fs.copy("", ""));
    send(fs.metadata(""));
    send(fs.symlink_metadata(""));
    send(fs.exists(""));
    send(fs.read_link(""));
    send(fs.create_dir(""));
    send(fs.create_dir_all(""));
    send(fs.rename("", ""));
    send(fs.remove(""));
    send(fs.remove_all(""));
    send(fs.hard_link("", ""));
    send(fs.symlink("", ""));
    send(fs.set_permissions("", 0));
    send(fs.set_owner("", None, None));
    send(fs.set_times("", None, None));
    send(fs.truncate("", 0));
    send(fs.temp_file(""));
    send(fs.temp_dir(""));
    send(fs.watch("", true));
    send(dir.open(""));
    send(listing.next());
    send(watch.next());
}

fn plugin_open_files(options: OpenOptions, other: OpenOptions, dir: &Dir, mut file: File) {
    send(options.open(""));
    send(other.open_at(dir, ""));
    send(file.read_at(&mut [0], 0));
    send(file.read_exact_at(&mut [0], 0));
    send(file.write_all_at(&[0], 0));
    send(file.read(&mut [0]));
    send(file.write_all(&[0]));
    send(file.seek(std::io::SeekFrom::Start(0)));
    send(file.read_to_end(&mut Vec::new()));
    send(file.write_stream(0, tokio_stream::empty::<Bytes>()));
    send(file.metadata());
    send(file.set_len(0));
    send(file.sync_all());
    send(file.sync_data());
    send(file.close());
}

fn plugin_network(network: &NetworkAccess, listener: &mut Listener, request: fn() -> HttpRequest) {
    send(network.resolve("", 0));
    send(network.connect("", 0));
    send(network.listen(None, 0));
    send(network.connect_udp("", 0));
    send(network.bind_udp(None, 0));
    send(network.get(""));
    send(network.request(request()));
    send(network.request_stream(request()));
    send(listener.accept());
}

fn plugin_datagrams(socket: &UdpSocket, address: std::net::SocketAddr) {
    send(socket.send(&[0]));
    send(socket.send_to(&[0], address));
    send(socket.recv(&mut [0]));
    send(socket.recv_from(&mut [0]));
}

fn plugin_processes(processes: &Processes, command: fn() -> Command, child: &mut Child) {
    send(processes.list());
    send(command().output());
    send(command().spawn());
    send(child.wait());
    send(child.kill());
    send(child.signal(1));
}

fn plugin_facts(env: &Env, clock: &Clock, ticks: &mut Ticks, log: &Log, session: &Session) {
    send(env.var(""));
    send(env.vars());
    send(env.names());
    send(env.ids());
    send(env.dirs());
    send(env.host_info());
    send(clock.now());
    send(clock.monotonic());
    send(clock.sleep(WAIT));
    send(clock.ticks(WAIT));
    send(clock.random(1));
    send(clock.uuid());
    send(ticks.next());
    send(log.write(LogLevel::Info, "", []));
    send(log.level());
    send(session.grants());
    send(session.usage());
}

fn plugin_hostserve(services: &HostServe, file: HostServeFile) {
    send(services.read_dir("", ""));
    send(services.read_file("", ""));
    send(services.write_file("", "", "", 0));
    send(services.open("", ""));
    send(services.metadata("", ""));
    send(services.symlink_metadata("", ""));
    send(services.read_link("", ""));
    send(services.create_dir_all("", "", 0));
    send(services.remove("", ""));
    send(services.create_temp_dir(""));
    send(services.env(""));
    send(services.temp_dir());
    send(services.home_dir());
    send(services.uid());
    send(services.pid());
    send(file.parts(1));
    send(file.close());
}

fn transport(
    stream: fn() -> Stream,
    channel: &Channel,
    options: ChannelOptions,
    fate: &Fate,
    security: &Security,
    limits: ServeLimits,
    stop: CancellationToken,
) {
    send(Channel::connect(stream(), options));
    send(channel.closed());
    send(fate.known(WAIT));
    send(serve_connection(stream(), ServiceSet::new(), limits, stop));
    send(security.connect(stream()));
    send(security.accept(stream()));
}

fn transport_routing(router: &Router, draining: &Draining) {
    send(router.wanted());
    send(draining.drained());
}

fn transport_brokers(
    broker: &dyn Broker,
    grpc: &GrpcBroker,
    listener: &mut outrigger_transport::Listener,
    methods: fn() -> Methods,
) {
    send(broker.serve(ID, ServiceSet::new()));
    send(broker.connect(ID));
    send(broker.serve_netrpc(ID, methods()));
    send(broker.serve_netrpc_once(ID, methods()));
    send(broker.connect_netrpc(ID));
    send(grpc.next_unclaimed());
    send(listener.accept());
}

fn transport_sockets(
    address: &Address,
    sockets: &Sockets,
    bound: &BoundListener,
    session: &yamux::Session,
) {
    send(connect(address));
    send(sockets.bind());
    send(bound.accept());
    send(session.open());
    send(session.accept());
    send(session.ping());
    send(session.closed());
}

fn transport_processes(
    command: &mut std::process::Command,
    handle: &ProcessHandle,
    task: &mut OwnedTask,
) {
    send(process::spawn(command));
    send(handle.ended());
    send(task.finished());
}

fn transport_interfaces(grpc: &GrpcCaller, netrpc: &NetRpcCaller) {
    send(grpc.unary::<(), ()>("", ()));
    send(grpc.server_streaming::<(), ()>("", ()));
    send(netrpc.call::<u64, u64>("", &1));
}

fn transport_netrpc(
    client: &Client,
    stream: fn() -> Stream,
    methods: Methods,
    stop: CancellationToken,
) {
    send(client.call::<u64, u64>("", &1));
    send(client.call_within::<u64, u64>(WAIT, "", &1));
    send(client.call_encoded::<u64>("", &1));
    send(client.closed());
    send(netrpc::serve(
        stream(),
        methods,
        ServeLimits::default(),
        stop,
    ));
}

fn transport_sessions(
    stream: fn() -> Stream,
    fate: Fate,
    budget: Budget,
    host: &HostSession,
    plugin: PluginSession,
) {
    send(HostSession::start(stream(), fate, budget, WAIT));
    send(host.dispense("", WAIT));
    send(host.ping(WAIT));
    send(host.quit());
    send(host.closed());
    send(PluginSession::accept(stream(), ServeLimits::default()));
    let never = |_: &str| Err(String::new());
    let limits = ServeLimits::default();
    send(plugin.serve(never, limits, CancellationToken::new(), async {}));
}

#[test]
fn every_public_future_of_the_libraries_is_above() {
    let own = include_str!("futures.rs");
    let listed = own
        .lines()
        .filter(|line| line.starts_with("    send("))
        .count();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates");
    let mut found = Vec::new();
    for library in ["", "-host", "-plugin", "-services", "-transport"] {
        found.extend(futures_in(&crates.join(format!("outrigger{library}/src"))));
    }
    let is_above = |name: &String| {
        let called = [format!("{name}("), format!("{name}::<")];
        called.iter().any(|call| own.contains(call))
    };
    let missing: Vec<_> = found.iter().filter(|name| !is_above(name)).collect();
    assert!(missing.is_empty(), "not above: {missing:?}");
    assert_eq!(listed, found.len(), "{found:?}");
}

/// The names of the public async functions in a directory's sources.
fn futures_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory of sources");
    let paths = entries.flatten().map(|entry| entry.path());
    let mut names = Vec::new();
    for path in paths.filter(|path| !path.ends_with("generated")) {
        if path.is_dir() {
            names.extend(futures_in(&path));
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source");
        let declared = text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("pub async fn "));
        names.extend(
            declared
                .filter_map(|rest| rest.split(['(', '<']).next())
                .map(str::to_owned),
        );
    }
    names
}
