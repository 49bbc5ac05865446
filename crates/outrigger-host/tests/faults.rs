//! Every way for a plugin to misbehave: the host says what happened within the
//! deadline, in bounded memory, and leaves nothing behind.
//!
//! Each fault is shown to a host process of its own, which is this test program
//! again, so that memory and leftovers are that fault's alone.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use outrigger_host::{
    BrokerId, Connection, Deadlines, ExitStatus, KillReason, Launch, LaunchError, MAX_MESSAGE,
    MagicCookie, PluginExited, PluginSet, RunningPlugin,
};
use outrigger_testing::{Fault, TestDir, holds_within, memory_of, processes_with, program};
use outrigger_transport::proto::health::health_client::HealthClient;
use outrigger_wire::proto::health::HealthCheckRequest;
use tonic::{Code, Status};

/// Names the fault in the environment of the process that shows it.
const SHOWN: &str = "OUTRIGGER_TEST_FAULT";
/// Host processes at the same time.
const AT_ONCE: usize = 4;
/// How much a host may grow, in bytes, whatever its plugin does.
const MEMORY: u64 = 64 << 20;
/// The deadline of a call.
const CALL: Duration = Duration::from_secs(4);
/// The deadline of a call whose answer comes behind a storm of broker ids, all of
/// which this side reads first.
const CALL_IN_STORM: Duration = Duration::from_secs(60);
/// How late a busy machine may make what a deadline promises.
const LATE: Duration = Duration::from_secs(2);

const DEADLINES: Deadlines = Deadlines {
    start: Duration::from_secs(3),
    connect: Duration::from_secs(1),
    broker: Duration::from_millis(500),
    stop_reply: Duration::from_millis(1500),
    stop_grace: Duration::from_millis(400),
    lost_grace: Duration::from_millis(800),
};

/// What a host must make of a fault.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// `start` fails with this code.
    Refused(&'static str),
    /// `start` fails with this code when this deadline passed, and not before.
    Late(&'static str, Duration),
    /// The plugin starts; calls fail with this code; it does not stop when asked.
    CallsFail(Code),
    /// The plugin starts; a call loses its connection, for which it is killed.
    LosesConnection,
    /// The plugin starts; calls fail with this code; it stops when asked.
    Unanswered(Code),
    /// The plugin starts; a call learns that it ended like this, and its last line.
    Ends(ExitStatus, &'static str),
    /// The plugin starts and answers; it is killed for this reason.
    Killed(KillReason),
    /// The plugin starts and answers, and stops when asked.
    Works(Doing),
}

/// What goes on while the plugin works.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Doing {
    Nothing,
    /// Its flood reaches an end.
    Flood,
    /// Much of its output arrives.
    Output,
    /// A broker id that it did not announce cannot be dialled: the code.
    Dial(&'static str),
}

/// The options that a host must have for a fault to show.
#[derive(Clone, Copy, Debug, PartialEq)]
enum With {
    Plain,
    AutoMtls,
    Mux,
}

fn expected(fault: Fault) -> Outcome {
    use Outcome::{CallsFail, Ends, Killed, Late, LosesConnection, Refused, Unanswered, Works};
    let Deadlines { start, connect, .. } = DEADLINES;
    match fault {
        Fault::GarbageLine
        | Fault::StdoutFlood
        | Fault::EmptyFirstLine
        | Fault::TooFewFields
        | Fault::ExitsDuringHandshake => Refused("handshake-malformed"),
        Fault::EndlessLine => Refused("handshake-endless"),
        Fault::CrawlingLine | Fault::Silence | Fault::LineWithoutEnd => {
            Late("handshake-timeout", start)
        }
        Fault::NulInLine => Refused("address-contains-nul"),
        Fault::LineNotUtf8 => Refused("address-not-utf8"),
        Fault::WrongCoreVersion => Refused("core-version-mismatch"),
        Fault::WrongAppVersion => Refused("app-version-mismatch"),
        Fault::CoreVersionNotANumber => Refused("core-version-invalid"),
        Fault::AppVersionNotANumber => Refused("app-version-invalid"),
        Fault::ForeignNetwork => Refused("address-unknown-network"),
        Fault::AddressTooLong => Refused("address-too-long"),
        Fault::AddressMissing | Fault::SocketMissing | Fault::PortClosed => {
            Refused("connect-failed")
        }
        Fault::ForeignProtocol => Refused("transport-not-allowed"),
        Fault::CertificateNotBase64 => Refused("certificate-invalid"),
        Fault::CertificateHollow => Refused("certificate-unusable"),
        Fault::CertificateMissing => Refused("certificate-missing"),
        Fault::CertificateUnasked => Refused("certificate-unexpected"),
        Fault::MuxMissing => Refused("mux-unsupported"),
        Fault::MuxNotABoolean => Refused("mux-invalid"),
        Fault::ExitsBeforeHandshake
        | Fault::FailsBeforeHandshake
        | Fault::DiesBeforeHandshake
        | Fault::ExitsAfterHandshake
        | Fault::ExitsAndPipesAreHeld => Refused("exited-early"),
        Fault::StdoutClosed => Refused("stdout-closed"),
        Fault::NeverAccepts
        | Fault::AcceptsAndSaysNothing
        | Fault::AcceptsAndTrickles
        | Fault::TlsSilence
        | Fault::MuxSilence => Late("connect-timeout", connect),
        Fault::AcceptsAndCloses => Refused("closed-at-once"),
        Fault::MuxGarbage => Refused("yamux-session-closed"),
        Fault::AnswersGarbage | Fault::AnswersHttp1 => Refused("not-http2"),
        Fault::AnswersTlsAlert => Refused("peer-uses-tls"),
        Fault::TlsGarbage | Fault::TlsMissing => Refused("tls-handshake-failed"),
        Fault::HugeFrames
        | Fault::EndlessHeaders
        | Fault::GoAwayAtOnce
        | Fault::WindowOverflow
        | Fault::HangsUp => LosesConnection,
        Fault::HangsUpAndEnds => Ends(ExitStatus::Code(0), "about to end"),
        Fault::SettingsFlood
        | Fault::PingFlood
        | Fault::HugeMessageTrickled
        | Fault::NeverAnswers => CallsFail(Code::DeadlineExceeded),
        Fault::ResetsCalls => Unanswered(Code::Internal),
        Fault::HugeMessage => CallsFail(Code::OutOfRange),
        Fault::StatusMissing => Unanswered(Code::Unknown),
        Fault::DiesDuringCall => Ends(ExitStatus::Signal(6), "about to die"),
        Fault::ExitsDuringCall => Ends(ExitStatus::Code(3), "about to give up"),
        Fault::IgnoresShutdown | Fault::IgnoresSignals | Fault::ChildStaysToo => {
            Killed(KillReason::NoAnswer(DEADLINES.stop_reply))
        }
        Fault::AgreesAndStays => Killed(KillReason::Stayed(DEADLINES.stop_grace)),
        Fault::ControllerMissing => Killed(KillReason::NoController),
        Fault::AgreesLate | Fault::AgreesAndWaits => Works(Doing::Nothing),
        Fault::BrokerMissing => Works(Doing::Dial("broker-missing")),
        Fault::SlowLine
        | Fault::StderrFloodFirst
        | Fault::StderrLineEndless
        | Fault::StdioForeign
        | Fault::ChildHoldsPipes
        | Fault::ChildKeepsRunning
        | Fault::LeavesDaemon => Works(Doing::Nothing),
        Fault::StdioFlood => Works(Doing::Output),
        Fault::StdoutFloodWhileServing
        | Fault::StderrFloodWhileServing
        | Fault::StdoutClosedWhileServing => Works(Doing::Flood),
        Fault::StderrClosedWhileServing => Works(Doing::Nothing),
        Fault::BrokerAnnouncementStorm => Works(Doing::Dial("broker-id-never-accepted")),
        Fault::BrokerKnockStorm | Fault::BrokerKnockRepeated => {
            Works(Doing::Dial("broker-id-never-accepted"))
        }
        Fault::BrokerNonsense => Works(Doing::Dial("broker-closed")),
    }
}

fn with(fault: Fault) -> With {
    match fault {
        Fault::CertificateHollow
        | Fault::CertificateMissing
        | Fault::TlsGarbage
        | Fault::TlsSilence
        | Fault::TlsMissing => With::AutoMtls,
        Fault::MuxMissing
        | Fault::MuxNotABoolean
        | Fault::MuxGarbage
        | Fault::MuxSilence
        | Fault::BrokerKnockStorm
        | Fault::BrokerKnockRepeated => With::Mux,
        _ => With::Plain,
    }
}

/// Counts what is written to it.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn launch(fault: Fault, output: Counter) -> Launch {
    let launch = Launch::new(
        program("misbehaving-plugin"),
        MagicCookie::new("COOKIE", "value"),
    )
    .arg(fault.as_str())
    .offer(1, PluginSet::new())
    .mirror_stdout(output)
    .deadlines(match fault {
        Fault::StderrFloodFirst | Fault::StderrLineEndless => Deadlines {
            start: Duration::from_secs(40),
            ..DEADLINES
        },
        _ => DEADLINES,
    });
    match with(fault) {
        With::Plain => launch,
        With::AutoMtls => launch.auto_mtls(),
        With::Mux => launch.mux_broker(),
    }
}

fn deadline_of_call(fault: Fault) -> Duration {
    match fault {
        Fault::BrokerAnnouncementStorm | Fault::BrokerKnockStorm | Fault::BrokerKnockRepeated => {
            CALL_IN_STORM
        }
        _ => CALL,
    }
}

async fn call(plugin: &RunningPlugin) -> Result<(), Status> {
    call_within(plugin, CALL).await
}

/// A call with a deadline of its own, for a reply as large as any.
async fn call_within(plugin: &RunningPlugin, limit: Duration) -> Result<(), Status> {
    let Connection::Grpc(channel) = plugin.connection() else {
        panic!("a gRPC plugin");
    };
    let client = HealthClient::new(channel.clone());
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    let request = HealthCheckRequest {
        service: "plugin".to_owned(),
    };
    match tokio::time::timeout(limit, client.check(request)).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(Status::deadline_exceeded("the test's own deadline")),
    }
}

fn refused(error: &LaunchError, code: &str, fault: Fault, took: Duration) {
    assert_eq!(error.code(), code, "{error:?}");
    let text = error.to_string();
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
    let exit = error.exit().map(|(status, _)| status);
    match fault {
        Fault::FailsBeforeHandshake => {
            assert_eq!(exit, Some(ExitStatus::Code(3)));
            assert_eq!(error.stderr(), ["\"cannot open the database\""]);
        }
        Fault::DiesBeforeHandshake => assert_eq!(exit, Some(ExitStatus::Signal(6))),
        Fault::ExitsBeforeHandshake => assert_eq!(exit, Some(ExitStatus::Code(0))),
        Fault::ExitsDuringHandshake | Fault::ExitsAfterHandshake | Fault::ExitsAndPipesAreHeld => {
            assert_eq!(exit, Some(ExitStatus::Code(3)))
        }
        _ => {}
    }
    assert!(
        took < DEADLINES.start + DEADLINES.connect + LATE,
        "took {took:?}"
    );
}

async fn show(fault: Fault) {
    let output = Counter::default();
    let began = Instant::now();
    let started = launch(fault, output.clone()).start().await;
    let took = began.elapsed();
    let outcome = expected(fault);
    let plugin = match (started, outcome) {
        (Err(error), Outcome::Refused(code)) => return refused(&error, code, fault, took),
        (Err(error), Outcome::Late(code, deadline)) => {
            assert!(took >= deadline, "gave up after {took:?}");
            return refused(&error, code, fault, took);
        }
        (Ok(plugin), Outcome::Refused(_) | Outcome::Late(..)) => {
            panic!("started: {plugin:?}, and then {:?}", call(&plugin).await)
        }
        (Err(error), _) => panic!("did not start: {error:?}"),
        (Ok(plugin), _) => plugin,
    };
    let began = Instant::now();
    let limit = deadline_of_call(fault);
    let answer = call_within(&plugin, limit).await;
    let took = began.elapsed();
    assert!(took < limit + LATE, "a call took {took:?}");
    match outcome {
        Outcome::CallsFail(code) | Outcome::Unanswered(code) => {
            assert_eq!(answer.expect_err("no answer").code(), code)
        }
        Outcome::LosesConnection => {
            assert_eq!(answer.expect_err("no answer").code(), Code::Unavailable);
        }
        Outcome::Ends(_, _) if fault == Fault::HangsUpAndEnds => {
            // The connection is lost before anybody knows why.
            assert_eq!(answer.expect_err("no answer").code(), Code::Unavailable);
            assert_eq!(plugin.wait().await.connection_lost, None);
        }
        Outcome::Ends(status, last) => {
            let error = answer.expect_err("no answer");
            assert_eq!(error.code(), Code::Unavailable);
            let exited = PluginExited::behind(&error).expect("the exit is the source");
            assert_eq!(exited.report.status, status);
            assert!(!exited.report.forced);
            assert!(
                exited.report.stderr.iter().any(|line| line.contains(last)),
                "{exited}"
            );
        }
        _ => answer.expect("an answer"),
    }
    if let Outcome::LosesConnection = outcome {
        return loses_connection(&plugin, began).await;
    }
    if let Outcome::Works(doing) = outcome {
        go_on(&plugin, doing, &output).await;
    }
    let began = Instant::now();
    let report = plugin.stop().await;
    let took = began.elapsed();
    let (reply, grace) = (DEADLINES.stop_reply, DEADLINES.stop_grace);
    assert!(took < reply + grace + LATE, "stopping took {took:?}");
    match outcome {
        Outcome::Killed(reason) => {
            assert_eq!(report.status, ExitStatus::Signal(9));
            assert_eq!(report.kill_reason, Some(reason));
            let patience = match reason {
                KillReason::NoAnswer(limit) | KillReason::Stayed(limit) => limit,
                _ => Duration::ZERO,
            };
            assert!(took >= patience, "killed after {took:?}");
            assert!(took < patience + LATE, "killed after {took:?}");
        }
        Outcome::CallsFail(_) => {
            assert!(report.forced, "{report:?}");
            assert_eq!(report.status, ExitStatus::Signal(9));
            assert!(took >= grace, "killed after {took:?}");
        }
        Outcome::Ends(status, _) => assert_eq!((report.status, report.forced), (status, false)),
        _ => {
            assert_eq!((report.status, report.forced), (ExitStatus::Code(0), false));
            assert_eq!(report.kill_reason, None);
        }
    }
}

/// A plugin that is no more use is ended, and everybody learns why.
async fn loses_connection(plugin: &RunningPlugin, began: Instant) {
    let report = plugin.wait().await;
    let took = began.elapsed();
    let grace = DEADLINES.lost_grace;
    assert!(took >= grace && took < CALL + grace + LATE, "{took:?}");
    assert_eq!(report.status, ExitStatus::Signal(9));
    assert_eq!(report.kill_reason, Some(KillReason::ConnectionLost(grace)));
    let why = report.connection_lost.as_deref().expect("a reason");
    let error = call(plugin).await.expect_err("no answer");
    let exited = PluginExited::behind(&error).expect("the end is the source");
    assert_eq!(exited.code(), "connection-lost");
    let text = format!("lost its connection while it ran ({why}) and was killed by signal 9");
    assert!(exited.to_string().contains(&text), "{exited}");
    assert!(plugin.ping().await.is_err());
    assert_eq!(plugin.stop().await.connection_lost.as_deref(), Some(why));
}

async fn go_on(plugin: &RunningPlugin, doing: Doing, output: &Counter) {
    let over = Instant::now() + Duration::from_secs(40);
    match doing {
        Doing::Nothing => {}
        Doing::Flood => {
            let is_over = || {
                plugin
                    .stderr_tail()
                    .iter()
                    .any(|line| line.contains("flood is over"))
            };
            while !is_over() {
                assert!(Instant::now() < over, "the flood goes on");
                call(plugin).await.expect("an answer during the flood");
            }
        }
        Doing::Output => {
            while output.0.load(Ordering::Relaxed) < 256 << 20 {
                assert!(Instant::now() < over, "{:?}", output.0);
                tokio::task::yield_now().await;
            }
        }
        Doing::Dial(code) => {
            // What the plugin says may come later than the end of the first dial.
            loop {
                let began = Instant::now();
                let error = plugin.broker().dial(BrokerId(4_000_000)).await;
                let error = error.map(drop).expect_err("nobody accepts it");
                assert!(began.elapsed() < DEADLINES.broker + LATE);
                if error.code() == code {
                    break;
                }
                assert!(Instant::now() < over, "{code}: {error}: {}", error.kind());
            }
            call(plugin).await.expect("calls go on");
        }
    }
}

/// Runs in a process of its own, started by the test below.
#[test]
#[ignore = "shows the fault that the environment names"]
fn one_fault() {
    let Some(fault) = std::env::var(SHOWN).ok().and_then(|name| name.parse().ok()) else {
        return;
    };
    let own = std::process::id();
    let before = memory_of(own).expect("its own memory").resident;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(show(fault));
    // While this process lives, so that it is not its end that cleans up.
    let dir = std::env::temp_dir();
    let marker = format!("TMPDIR={}", dir.display());
    let clean = holds_within(Duration::from_secs(1), || {
        processes_with(&marker).is_empty()
    });
    assert!(clean, "processes are left: {:?}", processes_with(&marker));
    let left: Vec<_> = std::fs::read_dir(&dir)
        .expect("a listing")
        .flatten()
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let grown = memory_of(own)
        .expect("its own memory")
        .peak
        .saturating_sub(before);
    assert!(grown < MEMORY, "the host grew by {} KiB", grown >> 10);
}

/// A host process that shows one fault.
struct Showing {
    fault: Fault,
    began: Instant,
    host: Child,
    dir: TestDir,
}

impl Showing {
    #[allow(clippy::disallowed_methods)] // The host is no plugin.
    fn start(fault: Fault) -> Self {
        let dir = TestDir::new();
        let host = Command::new(std::env::current_exe().expect("its own path"))
            .args(["--exact", "one_fault", "--ignored", "--nocapture"])
            .env(SHOWN, fault.as_str())
            .env("TMPDIR", dir.path())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        Self {
            fault,
            began: Instant::now(),
            host,
            dir,
        }
    }

    /// What was wrong, if anything.
    fn end(self) -> Result<Duration, String> {
        let fault = self.fault;
        let output = self
            .host
            .wait_with_output()
            .map_err(|error| error.to_string())?;
        let took = self.began.elapsed();
        let marker = format!("TMPDIR={}", self.dir.path().display());
        for pid in processes_with(&marker) {
            outrigger_testing::kill(pid);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() || !String::from_utf8_lossy(&output.stdout).contains("1 passed")
        {
            return Err(format!("{fault}, after {took:?}: {said}"));
        }
        Ok(took)
    }
}

#[test]
fn every_fault_is_reported_in_time_in_bounded_memory_and_leaves_nothing() {
    let only = std::env::var("OUTRIGGER_TEST_ONLY").ok();
    let faults = Fault::ALL.iter().copied();
    let mut left = faults.filter(|fault| only.as_deref().is_none_or(|only| fault.as_str() == only));
    let next = std::sync::Mutex::new(&mut left);
    let problems = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let fault = next.lock().expect("no panic").next();
                    let Some(fault) = fault else { return };
                    match Showing::start(fault).end() {
                        Ok(took) => {
                            let _ = writeln!(io::stderr(), "{fault}: {} ms", took.as_millis());
                        }
                        Err(problem) => problems.lock().expect("no panic").push(problem),
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().expect("no panic");
    assert!(
        problems.is_empty(),
        "{} faults:\n{}",
        problems.len(),
        problems.join("\n")
    );
}
