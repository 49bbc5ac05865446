//! The keys of a configuration, and what their sections are read into.
//!
//! A section is written once: its keys, what each is read as, what holds where it is left out, and
//! what it means.

use std::net::SocketAddr;
use std::path::PathBuf;

use outrigger_wire::Level;
use serde::Serialize;
use serde_json::{Value, json};

use crate::check::{Check, Fields, Home, Side};
use crate::choices::{LockMode, ReloadHow, RestartWhen, StartWhen};
use crate::keys::{Group, Key, Presence, Section, Shape, home};
use crate::manifest::SCHEMA;
use crate::message::quoted;
use crate::name::ByName;
use crate::problem::ProblemCode;
use crate::shapes::{Bool, Line, Whole, Word, word};
use crate::time::{Time, TimeSpan};
use crate::tree::Node;

/// A section: `=` gives the default as a file would have it, `?` says in words what holds
/// without the key, and `+` is a section within.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident: $about:literal {
        $($(#[$attribute:meta])* $key:ident: $shape:ty => $value:ty,
            $how:tt $default:literal, $meaning:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct $name {
            $(#[doc = concat!("`", stringify!($key), "`: ", $meaning, ".")]
            $(#[$attribute])*
            pub $key: $value,)*
        }

        impl Group for $name {
            fn section() -> &'static Section {
                static SECTION: Section = Section {
                    about: $about,
                    keys: &[$({
                        static KEY: Key<$shape> = key!($how $key, $default, $meaning);
                        &KEY
                    }),*],
                };
                &SECTION
            }

            fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Self> {
                Some(Self {
                    $($key: {
                        const KEY: Key<$shape> = key!($how $key, $default, $meaning);
                        read!($how KEY, check, fields)
                    },)*
                })
            }
        }

        impl Default for $name {
            fn default() -> Self {
                let read = <Self as Group>::from_fields(&mut Check::default(), &Fields::none());
                read.expect("a section may say nothing")
            }
        }
    };
}

macro_rules! key {
    (= $key:ident, $default:literal, $meaning:literal) => {
        Key::optional(stringify!($key), $meaning).default(concat!("`", $default, "`"))
    };
    (? $key:ident, $default:literal, $meaning:literal) => {
        Key::optional(stringify!($key), $meaning).default($default)
    };
    (+ $key:ident, $default:literal, $meaning:literal) => {
        Key::new(stringify!($key), Presence::MayBeEmpty, $meaning)
    };
}

macro_rules! read {
    (= $key:ident, $check:ident, $fields:ident) => {
        $key.read_or_default($check, $fields)
    };
    (? $key:ident, $check:ident, $fields:ident) => {
        $key.read($check, $fields)
    };
    (+ $key:ident, $check:ident, $fields:ident) => {
        $key.read($check, $fields).unwrap_or_default()
    };
}

section! {
    /// Who the application is. `outrigger run` tells it when it starts.
    Application: "who the application is" {
        app_name: Line => String, = "outrigger", "its name";
        app_mode: Line => Option<String>, ? "none",
            "in which mode it runs, in its own words: `prod` and `production` make the lock file's mode `locked`";
        app_version: AppVersion => AppVersion, + "", "its version";
    }
}

section! {
    /// The application's version.
    AppVersion: "its version" {
        major: Whole<0, { u32::MAX }> => u32, = "0", "first number";
        minor: Whole<0, { u32::MAX }> => u32, = "0", "second number";
        patch: Whole<0, { u32::MAX }> => u32, = "0", "third number";
        full: Line => Option<String>, ? "the three numbers", "the version as it is shown";
        codename: Line => Option<String>, ? "none", "a name for the version";
    }
}

impl AppVersion {
    /// The version as it is shown: `full`, or else the three numbers.
    ///
    /// ```
    /// assert_eq!(outrigger_manifest::AppVersion::default().shown(), "0.0.0");
    /// ```
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.full {
            Some(full) if !full.is_empty() => full.clone(),
            _ => format!("{}.{}.{}", self.major, self.minor, self.patch),
        }
    }
}

section! {
    /// Where things are.
    Directories: "where things are" {
        plugins_dir: FilePath => PathBuf, = "./plugins", "the folder of the plugins' folders";
        plugin_configs_dir: FilePath => Option<PathBuf>, ? "none",
            "the folder of the plugins' own configuration, a file for each";
        logs_dir: FilePath => PathBuf, = "./logs", "the folder of log files";
        data_dir: FilePath => Option<PathBuf>, ? "`outrigger` in `$XDG_DATA_HOME`, or in `~/.local/share`",
            "the folder of the plugins' data folders";
    }
}

section! {
    /// What is logged, and where.
    Logging: "what is logged, and where" {
        #[serde(serialize_with = "word")]
        log_level: Word<Level> => Level, = "info", "the least level that is logged";
        log_filename: Line => String, = "app.log", "the log file in `logs_dir`";
        log_max_size: Whole<0, 1_000_000> => u32, = "2", "size at which the file is put aside, in MB";
        log_max_backups: Whole<0, 1_000_000> => u32, = "0", "files put aside that are kept; `0` keeps all";
        log_max_age: Whole<0, 1_000_000> => u32, = "0", "days that they are kept; `0` keeps them for ever";
        log_compress: Bool => bool, = "false", "whether they are compressed";
        log_include_location: Bool => bool, = "true", "whether a record names its place in the source";
        log_mq: LogQueue => LogQueue, + "",
            "the queue between the application and the file; may be written `mq`";
    }
}

section! {
    /// The queue between the application and its log file.
    LogQueue: "the queue between the application and its log file" {
        log_enable_persistent_queue: Bool => bool, = "false", "whether there is one";
        log_db_file: Line => String, = "logs.db", "the file that it is kept in, in `logs_dir`";
        log_queue: Line => String, = "log_queue", "its name";
        log_remove_on_complete: Bool => bool, = "true", "whether a record that was written leaves it";
    }
}

section! {
    /// Whether changes on disk are noticed.
    FileWatcher: "whether changes on disk are noticed" {
        fw_enabled: Bool => bool, = "true",
            "whether folders are watched at all; otherwise they are looked at when that is asked for";
        fw_watch_plugins: Bool => bool, = "true",
            "whether a plugin whose own files changed is reloaded";
    }
}

section! {
    /// How many jobs run at one time.
    WorkerPool: "how many jobs run at one time" {
        wp_max_workers: Whole<1, 1_000_000> => u32, = "100", "the most of them";
    }
}

section! {
    /// What plugins may have at most.
    PolicySettings: "what plugins may have at most" {
        file: FilePath => Option<PathBuf>, ? "nothing is granted", "the host's policy";
        start_with_less: Bool => bool, = "false",
            "whether a plugin is started that does not get all it asks for";
    }
}

section! {
    /// What was approved.
    LockSettings: "what was approved" {
        file: FilePath => Option<PathBuf>, ? "`outrigger.lock` in `plugins_dir`", "the lock file";
        mode: Word<LockMode> => Option<LockMode>,
            ? "`trust-first` on a terminal; `locked` elsewhere and where `CI` is set",
            "what becomes of a plugin that the lock file does not know as it is";
    }
}

section! {
    /// Where decisions are written down.
    AuditSettings: "where decisions are written down" {
        file: FilePath => Option<PathBuf>, ? "none", "the file that each decision is appended to, a line of JSON each";
    }
}

section! {
    /// Where a running host is spoken to.
    ControlSettings: "where a running host is spoken to" {
        socket: FilePath => Option<PathBuf>, ? "a private folder of the user's, by the name of `plugins_dir`",
            "the socket";
    }
}

section! {
    /// Where a running host shows its numbers.
    MetricsSettings: "where a running host shows its numbers" {
        file: FilePath => Option<PathBuf>, ? "none", "a file that is written anew again and again";
        socket: FilePath => Option<PathBuf>, ? "none", "a unix socket that answers HTTP";
        address: Loopback => Option<SocketAddr>, ? "none",
            "an address of this machine's own that answers HTTP, such as `127.0.0.1:9464`";
    }
}

section! {
    /// When plugins are started, looked after and replaced.
    SupervisionSettings: "when plugins are started, looked after and replaced" {
        start: Word<StartWhen> => StartWhen, = "at-once", "with the host, or when it is first called";
        start_timeout: Time<1, HOUR> => TimeSpan, = "1m", "from the start of the process until it is ready";
        restart: Word<RestartWhen> => RestartWhen, = "on-failure", "when one that ended is started again";
        restart_delay: Time<1, HOUR> => TimeSpan, = "200ms",
            "before the first restart; each further one waits twice as long, half of it left to chance";
        restart_max_delay: Time<1, HOUR> => TimeSpan, = "30s", "the longest such wait";
        restart_reset: Time<1, DAY> => TimeSpan, = "1m", "health for so long makes the next restart a first one";
        restart_limit: Whole<0, 1000> => u32, = "5", "with more restarts than this within `restart_window` it has failed";
        restart_window: Time<1, DAY> => TimeSpan, = "1m", "see `restart_limit`";
        ping: Bool => bool, = "true", "whether a running one is asked whether it is well";
        ping_every: Time<10, DAY> => TimeSpan, = "10s", "how often";
        ping_timeout: Time<10, HOUR> => TimeSpan, = "5s", "how long an answer may take";
        ping_misses: Whole<1, 1000> => u32, = "3", "so many answers missing in a row have it restarted";
        reload: Word<ReloadHow> => ReloadHow, = "overlap",
            "whether a reload starts the new process beside the old one, or after it has ended";
        drain_timeout: Time<0, DAY> => TimeSpan, = "30s",
            "how long calls on a replaced one may take to end";
        rollback_within: Time<0, DAY> => TimeSpan, = "30s",
            "one that ends so soon after it replaced another is replaced by that again; `0s`: never";
        stop_timeout: Time<0, HOUR> => TimeSpan, = "12s", "from asking it to stop to killing it";
        idle_stop: Time<100, { 365 * DAY }> => Option<TimeSpan>, ? "never", "stop one that was not called for so long";
    }
}

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

static APPLICATION: Key<Application> = whole("application", "who the application is");
static DIRECTORIES: Key<Directories> = whole("directories", "where things are");
static LOGGING: Key<Logging> = whole("logging", "what is logged, and where");
static FILE_WATCHER: Key<FileWatcher> =
    whole("file_watcher", "whether changes on disk are noticed");
static WORKER_POOL: Key<WorkerPool> = whole("worker_pool", "how many jobs run at one time");
static POLICY: Key<PolicySettings> = whole("policy", "what plugins may have at most");
static LOCK: Key<LockSettings> = whole("lock", "what was approved");
static AUDIT: Key<AuditSettings> = whole("audit", "where decisions are written down");
static CONTROL: Key<ControlSettings> = whole("control", "where a running host is spoken to");
static METRICS: Key<MetricsSettings> = whole("metrics", "where a running host shows its numbers");
static SUPERVISION: Key<SupervisionSettings> = whole(
    "supervision",
    "when plugins are started, looked after and replaced",
);
static PLUGINS: Key<ByName<SupervisionSettings>> =
    whole("plugins", "keys of `supervision` for single plugins");

/// The keys of the whole file.
pub(crate) static CONFIGURATION: Section = Section {
    about: "",
    keys: &[
        &SCHEMA,
        &APPLICATION,
        &DIRECTORIES,
        &LOGGING,
        &FILE_WATCHER,
        &WORKER_POOL,
        &POLICY,
        &LOCK,
        &AUDIT,
        &CONTROL,
        &METRICS,
        &SUPERVISION,
        &PLUGINS,
    ],
};

/// Keys and sections that change something; the others are only read and checked so far.
pub(crate) const TAKES_EFFECT: &[&str] = &[
    "application.app_mode",
    "directories.plugins_dir",
    "directories.plugin_configs_dir",
    "directories.data_dir",
    "policy",
    "lock",
    "supervision.start_timeout",
    "supervision.restart",
    "supervision.restart_delay",
    "supervision.restart_max_delay",
    "supervision.restart_reset",
    "supervision.restart_limit",
    "supervision.restart_window",
    "supervision.ping",
    "supervision.ping_every",
    "supervision.ping_timeout",
    "supervision.ping_misses",
    "supervision.reload",
    "supervision.drain_timeout",
    "supervision.rollback_within",
    "supervision.stop_timeout",
];

/// What stands before a key's name in the variable that sets it, by its section: nothing where
/// the names of its keys say enough.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("application", ""),
    ("application.app_version", "APP_VERSION_"),
    ("directories", ""),
    ("logging", ""),
    ("logging.log_mq", ""),
    ("file_watcher", ""),
    ("worker_pool", ""),
    ("policy", "POLICY_"),
    ("lock", "LOCK_"),
    ("audit", "AUDIT_"),
    ("control", "CONTROL_"),
    ("metrics", "METRICS_"),
    ("supervision", ""),
];

/// Where the keys of a configuration belong.
pub(crate) const HOMES: &[Home] = &[
    home::<Values>(""),
    home::<Application>("application"),
    home::<AppVersion>("application.app_version"),
    home::<Directories>("directories"),
    home::<Logging>("logging"),
    home::<LogQueue>("logging.log_mq"),
    home::<FileWatcher>("file_watcher"),
    home::<WorkerPool>("worker_pool"),
    home::<SupervisionSettings>("supervision"),
];

const fn whole<S>(name: &'static str, meaning: &'static str) -> Key<S> {
    Key::new(name, Presence::MayBeEmpty, meaning)
}

/// The values of all keys but those for single plugins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Values {
    pub(crate) application: Application,
    pub(crate) directories: Directories,
    pub(crate) logging: Logging,
    pub(crate) file_watcher: FileWatcher,
    pub(crate) worker_pool: WorkerPool,
    pub(crate) policy: PolicySettings,
    pub(crate) lock: LockSettings,
    pub(crate) audit: AuditSettings,
    pub(crate) control: ControlSettings,
    pub(crate) metrics: MetricsSettings,
    pub(crate) supervision: SupervisionSettings,
}

impl Values {
    /// Every path, which is still as it was written, by its key.
    pub(crate) fn paths(&mut self) -> Vec<(&'static str, &mut PathBuf)> {
        let directories = &mut self.directories;
        let mut paths = vec![
            ("directories.plugins_dir", &mut directories.plugins_dir),
            ("directories.logs_dir", &mut directories.logs_dir),
        ];
        let optional = [
            (
                "directories.plugin_configs_dir",
                &mut directories.plugin_configs_dir,
            ),
            ("directories.data_dir", &mut directories.data_dir),
            ("policy.file", &mut self.policy.file),
            ("lock.file", &mut self.lock.file),
            ("audit.file", &mut self.audit.file),
            ("control.socket", &mut self.control.socket),
            ("metrics.file", &mut self.metrics.file),
            ("metrics.socket", &mut self.metrics.socket),
        ];
        paths.extend(
            optional
                .into_iter()
                .filter_map(|(key, path)| Some((key, path.as_mut()?))),
        );
        paths
    }
}

impl Group for Values {
    fn section() -> &'static Section {
        &CONFIGURATION
    }

    fn from_fields(check: &mut Check, root: &Fields<'_>) -> Option<Values> {
        SCHEMA.read(check, root);
        // What holds for single plugins is read again, over what holds for all.
        PLUGINS.read(check, root);
        Some(Values {
            application: APPLICATION.read(check, root).unwrap_or_default(),
            directories: DIRECTORIES.read(check, root).unwrap_or_default(),
            logging: LOGGING.read(check, root).unwrap_or_default(),
            file_watcher: FILE_WATCHER.read(check, root).unwrap_or_default(),
            worker_pool: WORKER_POOL.read(check, root).unwrap_or_default(),
            policy: POLICY.read(check, root).unwrap_or_default(),
            lock: LOCK.read(check, root).unwrap_or_default(),
            audit: AUDIT.read(check, root).unwrap_or_default(),
            control: CONTROL.read(check, root).unwrap_or_default(),
            metrics: METRICS.read(check, root).unwrap_or_default(),
            supervision: SUPERVISION.read(check, root).unwrap_or_default(),
        })
    }
}

/// A path on this machine, relative or not.
pub(crate) struct FilePath;

impl Shape for FilePath {
    type Value = PathBuf;

    fn kind(_: Side) -> String {
        "path".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": "string", "minLength": 1})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<PathBuf> {
        let text = check.literal(node, location)?;
        let wrong = if text.is_empty() {
            "the path is empty".to_owned()
        } else if text == "~" || text.starts_with("~/") || text.starts_with('$') {
            format!("{} is not filled in here", quoted(text))
        } else {
            return Some(PathBuf::from(text));
        };
        check
            .report(node.at, ProblemCode::InvalidPath, location, wrong)
            .help("write the path out");
        None
    }
}

/// A port of this machine that no other machine reaches.
pub(crate) struct Loopback;

impl Shape for Loopback {
    type Value = SocketAddr;

    fn kind(_: Side) -> String {
        "address and port".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": "string"})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<SocketAddr> {
        let text = check.literal(node, location)?;
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => return Some(address),
            _ => {
                let message = format!("{} is no address of this machine's own", quoted(text));
                check
                    .report(node.at, ProblemCode::NotLoopback, location, message)
                    .help("write an address and a port, such as `127.0.0.1:9464` or `[::1]:9464`");
            }
        }
        None
    }
}
