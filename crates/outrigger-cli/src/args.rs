//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use outrigger::{Configure, ExpectedDigest};
use outrigger_manifest::TimeSpan;
use outrigger_wire::{MagicCookie, Transport};

use crate::descriptors::MethodName;
use crate::offer::Offer;
use crate::reattach::Joined;
use crate::steps::Calls;

/// Looks at programs that speak go-plugin's protocol, calls them, and checks their manifests.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, about, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  the plugin started, but it or the call failed; the file that was checked has problems
  2  wrong usage: flags, an unknown method, JSON that does not fit, a manifest with problems
  3  the plugin could not be started or reached
  4  this side failed, for example to write its output
  5  a plugin has to be approved, or is not what the lock file says
  130, 143  interrupted or asked to end; the plugin was ended too";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a plugin and tell what it says about itself.
    #[command(after_help = EXIT_CODES)]
    Inspect(Box<InspectArgs>),
    /// Start a plugin and print the `.proto` of its interface, for other languages.
    #[command(after_help = EXIT_CODES)]
    Proto(Box<ProtoArgs>),
    /// Call methods of a plugin over the protocol it speaks.
    #[command(after_help = EXIT_CODES)]
    Call(Box<CallArgs>),
    /// Start a plugin and call its methods as they are typed, one a line.
    #[command(after_help = EXIT_CODES)]
    Shell(Box<ShellArgs>),
    /// Read a manifest or a policy: print every problem, or what is granted.
    #[command(after_help = EXIT_CODES)]
    Check(CheckArgs),
    /// Bring the lock file up to date with what is installed; nothing is started.
    #[command(after_help = EXIT_CODES)]
    Lock(LockArgs),
    /// Approve a plugin as it is installed now: its program, and all that it asks for.
    #[command(after_help = EXIT_CODES)]
    Approve(ApproveArgs),
    /// Print every setting and where it comes from, or every problem of the configuration.
    #[command(after_help = EXIT_CODES)]
    Config(ConfigArgs),
    /// Say what the code of an error means, and what to do; or list all codes.
    #[command(after_help = EXIT_CODES)]
    Explain(ExplainArgs),
    /// Make a plugin or a host that builds at once, with a test and a CI file.
    #[command(after_help = EXIT_CODES)]
    New(NewArgs),
    /// Try what this machine can enforce, and say what would help.
    #[command(after_help = EXIT_CODES)]
    Doctor(DoctorArgs),
    /// Print the completions of the command for a shell.
    #[command(after_help = EXIT_CODES)]
    Completions(CompletionsArgs),
    /// Print the manual page of the command, or of one of its subcommands.
    #[command(after_help = EXIT_CODES)]
    Man(ManArgs),
}

/// What is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum NewKind {
    /// A program that a host starts.
    Plugin,
    /// A program that starts plugins.
    Host,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Language {
    Rust,
    Go,
    Python,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct NewArgs {
    #[arg(value_enum)]
    pub(crate) kind: NewKind,

    /// Its name: words of `a-z` and `0-9` joined by `-`.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// What it is written in.
    #[arg(long, value_enum)]
    pub(crate) language: Language,

    /// The folder to make. Without it, one by its name here.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) into: Option<PathBuf>,

    /// Take crates and package from this checkout of Outrigger.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["git", "rev"])]
    pub(crate) path: Option<PathBuf>,

    /// Take crates and package from this repository. Without it, and without `--path`, from
    /// Outrigger's own.
    #[arg(long, value_name = "URL")]
    pub(crate) git: Option<String>,

    /// Which state of the repository: a commit or a tag.
    #[arg(long, value_name = "REV")]
    pub(crate) rev: Option<String>,

    /// Print one JSON object instead of text for people.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object instead of text for people.
    #[arg(long)]
    pub(crate) json: bool,

    /// Try one thing that cannot be taken back, in this process.
    #[arg(long = "try", value_enum, hide = true)]
    pub(crate) probe: Option<Probe>,
}

/// What `doctor` tries in a process of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Probe {
    Landlock,
    Seccomp,
    Namespaces,
    Proc,
    ProcInside,
}

impl Probe {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Namespaces => "namespaces",
            Self::Proc => "proc",
            Self::ProcInside => "proc-inside",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ManArgs {
    /// The subcommand. Without it, the page of the command as a whole.
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Option<String>,

    /// Write all pages into this folder instead, such as `~/.local/share/man/man1`.
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub(crate) into: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The code that stands in brackets after `error`.
    #[arg(value_name = "CODE")]
    pub(crate) code: Option<String>,

    /// Print JSON instead of text for people.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the configuration is read from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Configured {
    /// The configuration. Without it the file that `OUTRIGGER_CONFIG` names, or else
    /// `outrigger.yaml` in this folder, if there is one.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Set a key over file and environment, such as `supervision.restart=never`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) set: Vec<(String, String)>,
}

impl Configured {
    pub(crate) fn configure(&self) -> Configure {
        let mut configure = Configure::new().environment();
        if let Some(file) = &self.config {
            configure = configure.file(file);
        }
        for (key, text) in &self.set {
            configure = configure.set("--set", key, text);
        }
        configure
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    pub(crate) configured: Configured,

    /// Print one JSON object instead of text for people.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LockArgs {
    /// The folder with the folders of the plugins. Without it, that of the configuration, which
    /// is `plugins` unless it says otherwise.
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,

    /// Change nothing, and fail if anything differs from the lock file.
    #[arg(long)]
    pub(crate) check: bool,

    /// The lock file. Without it, that of the configuration, or else `outrigger.lock` in the folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) lock_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) configured: Configured,

    /// Print one JSON object instead of text for people.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ApproveArgs {
    /// The plugin, by the name in its manifest.
    pub(crate) name: String,

    /// The folder with the folders of the plugins. Without it, that of the configuration, which
    /// is `plugins` unless it says otherwise.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,

    /// Approve without asking, if the plugin's program hashes to this: `sha256:…`.
    #[arg(long, value_name = "DIGEST")]
    pub(crate) expect: Option<ExpectedDigest>,

    /// The lock file. Without it, that of the configuration, or else `outrigger.lock` in the folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) lock_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) configured: Configured,

    /// Append to this file, as a line of JSON, who approved what.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,

    /// Print one JSON object instead of text for people, and never ask.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArgs {
    /// The manifest, the folder that holds it as `manifest.yaml`, or a policy.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The host's policy. Without it, whatever the manifest asks for is granted.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,

    /// What `${data_dir}` stands for. Without it, a folder of the user's own for this plugin.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Fail as well when something that is asked for is not granted in full.
    #[arg(long)]
    pub(crate) strict: bool,

    /// Print one JSON object instead of text for people.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Under which grants the plugin runs.
#[derive(Clone, Debug, Args)]
pub(crate) struct GrantArgs {
    /// The plugin's manifest, or the folder that holds it. It says how to start the plugin, and
    /// what the host does for it. Without it, nothing is granted.
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,

    /// The host's policy. Without it, whatever the manifest asks for is granted.
    #[arg(long, value_name = "FILE", requires = "manifest")]
    pub(crate) policy: Option<PathBuf>,

    /// What `${data_dir}` stands for. Without it, a folder of the user's own for this plugin.
    #[arg(long, value_name = "FOLDER", requires = "manifest")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Print each decision of the host on stderr, or append it to a file as a line of JSON.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub(crate) audit: Option<Option<PathBuf>>,
}

/// Which plugin to start, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct PluginArgs {
    /// The magic cookie that the plugin expects in its environment.
    #[arg(long, value_name = "KEY=VALUE", value_parser = cookie)]
    pub(crate) cookie: Option<MagicCookie>,

    /// App protocol version to offer; may be repeated. Without it, whatever the plugin speaks.
    #[arg(long = "app-version", value_name = "N", value_delimiter = ',')]
    pub(crate) app_versions: Vec<u32>,

    /// The protocol that the plugin must speak. Without it, whichever it announces.
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(["grpc", "netrpc"]).try_map(|word| word.parse::<Transport>()),
        hide_possible_values = true,
        value_name = "grpc | netrpc"
    )]
    pub(crate) protocol: Option<Transport>,

    /// Agree on one-time certificates with the plugin (AutoMTLS).
    #[arg(long)]
    pub(crate) auto_mtls: bool,

    /// Ask for brokered connections over one socket.
    #[arg(long)]
    pub(crate) mux: bool,

    /// Print one JSON object instead of text for people.
    #[arg(long)]
    pub(crate) json: bool,

    /// How long the plugin may take to start, such as `500ms`, `10s` or `2m`.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub(crate) start_timeout: Duration,

    /// Show the plugin's log lines, and ours, on stderr.
    #[arg(short, long)]
    pub(crate) verbose: bool,

    #[command(flatten)]
    pub(crate) grants: GrantArgs,

    /// Join a plugin that runs already, and leave it running: the line that it printed when it was
    /// started by hand, or what Terraform calls its reattach configuration.
    #[arg(
        long,
        value_name = "LINE | JSON",
        conflicts_with_all = ["program", "cookie", "app_versions", "auto_mtls", "mux", "start_timeout"]
    )]
    pub(crate) reattach: Option<Joined>,

    /// The plugin program and its arguments, after `--`. Without it, the manifest's entrypoint.
    #[arg(last = true, required_unless_present_any = ["manifest", "reattach"], num_args = 1.., value_name = "PROGRAM [ARG]")]
    pub(crate) program: Vec<OsString>,
}

impl PluginArgs {
    pub(crate) fn program(&self) -> PathBuf {
        self.program.first().map(PathBuf::from).unwrap_or_default()
    }

    pub(crate) fn arguments(&self) -> &[OsString] {
        self.program.get(1..).unwrap_or_default()
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ProtoArgs {
    /// Print this file, where the plugin has several.
    #[arg(long, value_name = "NAME")]
    pub(crate) file: Option<String>,

    #[command(flatten)]
    pub(crate) plugin: PluginArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArgs {
    /// net/rpc: dispense this name of the plugin's set as a test; may be repeated.
    #[arg(long = "plugin", value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// gRPC: descriptors of what to look for in a plugin that does not describe itself: a file
    /// that `protoc --include_imports --descriptor_set_out` wrote.
    #[arg(long, value_name = "FILE")]
    pub(crate) descriptors: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) plugin: PluginArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CallArgs {
    #[command(flatten)]
    pub(crate) calls: Calls,

    /// Make the further calls as well when one has failed.
    #[arg(long)]
    pub(crate) keep_going: bool,

    #[command(flatten)]
    pub(crate) calling: CallingArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ShellArgs {
    /// Keep the lines that were typed in this file, for the next time. Without it, they are
    /// forgotten at the end.
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) calling: CallingArgs,
}

/// How calls are made on a plugin.
#[derive(Clone, Debug, Args)]
pub(crate) struct CallingArgs {
    /// net/rpc: the name in the plugin's set whose object to call.
    #[arg(long = "plugin", value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// net/rpc: a type that `--type` and `@type` may name, such as `main.Shape=struct{Sides int}`;
    /// may be repeated.
    #[arg(long = "type-def", value_name = "NAME=GO-TYPE", value_parser = pair)]
    pub(crate) type_defs: Vec<(String, String)>,

    /// Metadata to send; may be repeated. Values of keys that end in `-bin` are base64.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) metadata: Vec<(String, String)>,

    /// Before the calls, offer the host's services to the plugin: serve them on a broker id and
    /// call this method with it, such as `filelister.v1.FileLister/EstablishHostServices`.
    #[arg(long, value_name = "SERVICE/METHOD | SERVICE.METHOD")]
    pub(crate) establish: Option<MethodName>,

    /// gRPC: serve the plugin a service of your own, with the replies of a JSON file; may be
    /// repeated. Its broker id goes into the field of a request that is for one, or into FIELD;
    /// ID is for plugins that dial a fixed one.
    #[arg(long, value_name = "SERVICE=FILE[@FIELD|@ID]")]
    pub(crate) serve: Vec<Offer>,

    /// gRPC: descriptors for a plugin that does not describe itself: a file that
    /// `protoc --include_imports --descriptor_set_out` wrote.
    #[arg(long, value_name = "FILE")]
    pub(crate) descriptors: Option<PathBuf>,

    /// How long a call may take, such as `500ms` or `2m`; `0` sets no limit.
    /// Default: 60 s for unary calls, no limit for streams.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) plugin: PluginArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn cookie(text: &str) -> Result<MagicCookie, String> {
    let (key, value) = pair(text)?;
    if text.contains('\0') || value.is_empty() {
        return Err("expected KEY=VALUE, neither of them empty".to_owned());
    }
    Ok(MagicCookie::new(key, value))
}

fn duration(text: &str) -> Result<Duration, String> {
    let unit = if text.ends_with(|c: char| c.is_ascii_digit()) {
        "s"
    } else {
        ""
    };
    let time: TimeSpan = format!("{text}{unit}")
        .parse()
        .map_err(|_| "expected a time of at most a year such as 500ms, 10s or 2m")?;
    Ok(time.into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn call(args: &[&str]) -> Result<CallArgs, clap::Error> {
        let all = ["outrigger", "call"].iter().chain(args);
        match Cli::try_parse_from(all)?.command {
            Command::Call(call) => Ok(*call),
            _ => panic!("not a call"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_dashes_belongs_to_the_plugin() {
        let args = call(&["--method", "a.B/C", "--", "./p", "--json", "-"]).expect("good");
        let plugin = args.calling.plugin;
        assert_eq!(plugin.program(), PathBuf::from("./p"));
        assert_eq!(plugin.arguments(), ["--json", "-"]);
        assert!(!plugin.json);
    }

    #[test]
    fn a_program_is_required() {
        assert!(call(&["--method", "a.B/C"]).is_err());
        assert!(call(&["--method", "a.B/C", "--"]).is_err());
        assert!(call(&["--method", "a.B/C", "--manifest", "m"]).is_ok());
        assert!(call(&["--method", "a.B/C", "--policy", "p", "--", "x"]).is_err());
    }

    #[test]
    fn times_are_read_with_and_without_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("1.5s", 1500),
            ("2", 2000),
            ("1h30m", 5_400_000),
            ("2m", 120_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "nans", "1e300", "inf"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
