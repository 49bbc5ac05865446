//! Plugins, events and decisions of a run, for people and as JSON.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use anstyle::{AnsiColor, Style};
use prost_types::Timestamp;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use crate::confinement::{self, UNSANDBOXED};
use crate::control::proto;
use crate::control::proto::state::Kind;

/// How wide a text for people is.
const WIDTH: usize = 80;
/// How wide the names of plugins are in a table, at most.
const WIDEST_NAME: usize = 23;
/// Where the facts of one plugin begin.
const FACTS: usize = 11;

/// The word of a state.
pub(crate) fn state(plugin: &proto::Plugin) -> &'static str {
    match kind(plugin) {
        Kind::Unspecified => "unknown",
        Kind::Installed => "installed",
        Kind::NeedsApproval => "needs-approval",
        Kind::Starting => "starting",
        Kind::Running => "running",
        Kind::Degraded => "degraded",
        Kind::Backoff => "backoff",
        Kind::Stopping => "stopping",
        Kind::Stopped => "stopped",
        Kind::Failed => "failed",
        Kind::Broken => "broken",
    }
}

pub(crate) fn kind(plugin: &proto::Plugin) -> Kind {
    plugin
        .state
        .as_ref()
        .map(proto::State::kind)
        .unwrap_or_default()
}

/// Whether calls reach it.
pub(crate) fn is_running(plugin: &proto::Plugin) -> bool {
    matches!(kind(plugin), Kind::Running | Kind::Degraded)
}

fn why(plugin: &proto::Plugin) -> Option<&proto::Problem> {
    plugin.state.as_ref()?.why.as_ref()
}

/// A state with its colour.
fn coloured(plugin: &proto::Plugin, width: usize) -> String {
    let colour = match kind(plugin) {
        Kind::Running => AnsiColor::Green,
        Kind::Starting | Kind::Degraded | Kind::Backoff | Kind::Stopping => AnsiColor::Yellow,
        Kind::NeedsApproval | Kind::Failed | Kind::Broken => AnsiColor::Red,
        Kind::Unspecified | Kind::Installed | Kind::Stopped => {
            return format!("{:width$}", state(plugin));
        }
    };
    let style = Style::new().fg_color(Some(colour.into()));
    let word = state(plugin);
    let space = " ".repeat(width.saturating_sub(word.len()));
    format!("{style}{word}{style:#}{space}")
}

/// The word that is not to be overlooked, if it is due.
fn unsandboxed(plugin: &proto::Plugin) -> Option<String> {
    let loud = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    confinement::is_missing(plugin.confinement.as_ref())
        .then(|| format!("{loud}{UNSANDBOXED}{loud:#}"))
}

/// One object for a plugin.
pub(crate) fn json(plugin: &proto::Plugin) -> Value {
    let text = |text: &str| match text {
        "" => Value::Null,
        text => text.into(),
    };
    let state_of = plugin.state.clone().unwrap_or_default();
    json!({
        "name": plugin.name,
        "version": text(&plugin.version),
        "type": text(&plugin.r#type),
        "folder": plugin.folder,
        "protocol": text(&plugin.protocol),
        "state": state(plugin),
        "since": moment(plugin.since.as_ref()),
        "why": state_of.why.as_ref().map(problem),
        "attempt": (state_of.attempt > 0).then_some(state_of.attempt),
        "until": moment(state_of.until.as_ref()),
        "diff": state_of.diff,
        "generation": plugin.generation,
        "restarts": plugin.restarts,
        "pid": plugin.pid,
        "digest": text(&plugin.digest),
        "sandbox": plugin.confinement.as_ref().map(|found| json!({
            "wanted": found.wanted,
            "enforced": found.enforced,
        })),
        "usage": plugin.usage.as_ref().map(|used| json!({
            "resident_bytes": used.resident_bytes,
            "peak_bytes": used.peak_bytes,
            "cpu_ms": span(used.cpu.as_ref()).map(|cpu| cpu.as_millis() as u64),
            "threads": used.threads,
            "descriptors": used.descriptors,
            "children": used.children,
        })),
        "last_exit": text(&plugin.last_exit),
    })
}

fn problem(problem: &proto::Problem) -> Value {
    json!({
        "code": problem.code,
        "message": problem.message,
        "details": problem.details,
        "help": problem.help,
    })
}

/// One object for an event.
pub(crate) fn event_json(told: &proto::EventsResponse) -> Value {
    let event = told.event.clone().unwrap_or_default();
    json!({
        "missed": told.missed,
        "seq": event.seq,
        "at": moment(event.at.as_ref()),
        "plugin": event.plugin,
        "kind": event.kind,
        "text": event.text,
    })
}

/// One line for an event.
pub(crate) fn event(event: &proto::Event) -> String {
    let dim = Style::new().dimmed();
    format!("{dim}{}{dim:#} {}", clock(event.at.as_ref()), event.text)
}

/// When something was, as RFC 3339 has it.
pub(crate) fn moment(time: Option<&Timestamp>) -> Option<String> {
    Some(format!("{:.3}", at(time)?))
}

/// The time of day, to the millisecond, in UTC.
pub(crate) fn clock(time: Option<&Timestamp>) -> String {
    let time = at(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%H:%M:%S.%3fZ").to_string()
}

fn at(time: Option<&Timestamp>) -> Option<jiff::Timestamp> {
    let time = time?;
    jiff::Timestamp::new(time.seconds, time.nanos).ok()
}

pub(crate) fn span(span: Option<&prost_types::Duration>) -> Option<Duration> {
    Duration::try_from(*span?).ok()
}

/// How long something has been so, in one or two units.
fn ago(time: Option<&Timestamp>) -> Option<String> {
    let since = SystemTime::try_from(*time?).ok()?;
    // A clock that was set back has nothing to say.
    let span = SystemTime::now().duration_since(since).ok()?;
    Some(short(span))
}

fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A number of bytes in the largest unit that leaves something in front of the point.
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < units.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", units[unit])
}

/// The beginning of a text that fits into so many columns.
pub(crate) fn fitted(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut fitted = String::new();
    for letter in text.chars() {
        fitted.push(letter);
        if fitted.width() >= columns {
            fitted.pop();
            break;
        }
    }
    format!("{fitted}…")
}

/// A table of plugins, each with the first line of what is wrong with it.
pub(crate) fn table(plugins: &[proto::Plugin]) -> String {
    let bold = Style::new().bold();
    let names = plugins.iter().map(|plugin| plugin.name.width());
    let name = names.max().unwrap_or(0).clamp("NAME".len(), WIDEST_NAME);
    let heading = format!(
        "{:name$}  {:10} {:8} {:14} {:>9} {:>10}",
        "NAME", "VERSION", "PROTOCOL", "STATE", "PROCESS", "MEMORY"
    );
    let mut text = format!("{bold}{}{bold:#}\n", heading.trim_end());
    for plugin in plugins {
        let version = fitted(&plugin.version, 10);
        let pid = plugin.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let memory = plugin.usage.as_ref().map(|used| size(used.resident_bytes));
        let shown = fitted(&plugin.name, name);
        let space = " ".repeat(name.saturating_sub(shown.width()));
        let line = format!(
            "{shown}{space}  {version:10} {:8} {} {pid:>9} {:>10}",
            plugin.protocol,
            coloured(plugin, 14),
            memory.unwrap_or_default(),
        );
        text.push_str(line.trim_end());
        text.push('\n');
        if let Some(word) = unsandboxed(plugin) {
            let wanted = plugin
                .confinement
                .as_ref()
                .map(|found| found.wanted.as_str());
            let _ = writeln!(
                text,
                "  {word}: its manifest says `sandbox: {}`",
                wanted.unwrap_or_default()
            );
        }
        if let Some(why) = why(plugin) {
            let reason = format!("{}: {}", why.code, why.message);
            let _ = writeln!(text, "  {}", fitted(&reason, WIDTH - 2));
        }
    }
    text
}

/// The line of a plugin that was started, or was not.
pub(crate) fn start_line(plugin: &proto::Plugin) -> String {
    let mut text = plugin.name.clone();
    for part in [&plugin.version, &plugin.protocol] {
        if !part.is_empty() {
            let _ = write!(text, " {part}");
        }
    }
    let _ = write!(text, " {}", coloured(plugin, 0));
    if let Some(word) = unsandboxed(plugin) {
        let _ = write!(text, " {word}");
    }
    if let Some(pid) = plugin.pid {
        let _ = write!(text, " (process {pid})");
    }
    if let Some(why) = why(plugin) {
        let _ = write!(text, ": {}: {}", why.code, why.message);
    }
    text.push('\n');
    text
}

/// All that is known of one plugin.
pub(crate) fn portrait(plugin: &proto::Plugin) -> String {
    let bold = Style::new().bold();
    let mut text =
        format!("{bold}{}{bold:#} {}\n", plugin.name, plugin.version).replace(" \n", "\n");
    let mut state = coloured(plugin, 0);
    if let Some(span) = ago(plugin.since.as_ref()) {
        let _ = write!(state, " for {span}");
    }
    fact(&mut text, "state", &state);
    if let Some(found) = &plugin.confinement {
        let wanted = format!("`sandbox: {}`", found.wanted);
        match unsandboxed(plugin) {
            Some(word) => fact(
                &mut text,
                "sandbox",
                &format!("{word}: its manifest says {wanted}"),
            ),
            None => fact(&mut text, "sandbox", &wanted),
        }
    }
    for (name, value) in [
        ("protocol", &plugin.protocol),
        ("type", &plugin.r#type),
        ("folder", &plugin.folder),
        ("digest", &plugin.digest),
    ] {
        if !value.is_empty() {
            fact(&mut text, name, value);
        }
    }
    let mut process = plugin
        .pid
        .map(|pid| vec![pid.to_string()])
        .unwrap_or_default();
    if plugin.generation > 0 {
        process.push(format!("start {}", plugin.generation));
    }
    if plugin.restarts > 0 {
        process.push(format!(
            "started anew {} times after failures",
            plugin.restarts
        ));
    }
    if !process.is_empty() {
        fact(&mut text, "process", &process.join(", "));
    }
    if let Some(used) = &plugin.usage {
        let memory = format!(
            "{} of memory, at most {}",
            size(used.resident_bytes),
            size(used.peak_bytes)
        );
        fact(&mut text, "uses", &memory);
        let cpu = span(used.cpu.as_ref()).unwrap_or_default();
        let counts = format!(
            "{:.2} s of a processor, {} threads, {} descriptors, {} children",
            cpu.as_secs_f64(),
            used.threads,
            used.descriptors,
            used.children
        );
        fact(&mut text, "", &counts);
    }
    if !plugin.last_exit.is_empty() {
        fact(&mut text, "last end", &plugin.last_exit);
    }
    if let Some(why) = why(plugin) {
        fact(&mut text, "why", &format!("{}: {}", why.code, why.message));
        why.details
            .iter()
            .for_each(|detail| fact(&mut text, "", detail));
        if !why.help.is_empty() {
            fact(&mut text, "help", &why.help);
        }
    }
    text
}

/// A named fact, over as many lines as it takes.
fn fact(text: &mut String, name: &str, value: &str) {
    let dim = Style::new().dimmed();
    let mut lines = wrapped(value, WIDTH - 2 - FACTS).into_iter();
    let space = " ".repeat(FACTS - name.len());
    let first = lines.next().unwrap_or_default();
    let _ = writeln!(text, "  {dim}{name}{dim:#}{space}{first}");
    for line in lines {
        let _ = writeln!(text, "  {}{line}", " ".repeat(FACTS));
    }
}

/// A text in lines of so many columns, as far as its words allow that.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let width = |text: &str| anstream::adapter::strip_str(text).to_string().width();
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(name: &str, kind: Kind) -> proto::Plugin {
        proto::Plugin {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            folder: format!("/srv/plugins/{name}"),
            protocol: "grpc".to_owned(),
            state: Some(proto::State {
                kind: kind.into(),
                ..proto::State::default()
            }),
            confinement: Some(proto::Confinement {
                wanted: "require".to_owned(),
                enforced: false,
            }),
            ..proto::Plugin::default()
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_table_fits_into_eighty_columns_and_says_what_is_wrong() {
        let mut running = plugin("greeter", Kind::Running);
        running.pid = Some(4_194_304);
        running.usage = Some(proto::Usage {
            resident_bytes: 1_000_000_000,
            ..proto::Usage::default()
        });
        let mut broken = plugin(&"long-name-".repeat(5), Kind::Broken);
        broken.version = "100.200.300-alpha.1".to_owned();
        broken.confinement = None;
        if let Some(state) = &mut broken.state {
            state.why = Some(proto::Problem {
                code: "manifest-invalid".to_owned(),
                message: "the manifest has 3 problems ".repeat(5),
                ..proto::Problem::default()
            });
        }
        let text = plain(&table(&[running, broken]));
        insta::assert_snapshot!(text, @r"
        NAME                     VERSION    PROTOCOL STATE            PROCESS     MEMORY
        greeter                  1.0.0      grpc     running          4194304  953.7 MiB
          unsandboxed: its manifest says `sandbox: require`
        long-name-long-name-lo…  100.200.3… grpc     broken
          manifest-invalid: the manifest has 3 problems the manifest has 3 problems the…
        ");
        assert!(text.lines().all(|line| line.width() <= WIDTH), "{text}");
    }

    #[test]
    fn a_portrait_names_every_fact_that_is_known() {
        let mut found = plugin("greeter", Kind::Backoff);
        found.r#type = "animal".to_owned();
        found.digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        found.generation = 3;
        found.restarts = 2;
        found.last_exit = "exited with status 1".to_owned();
        if let Some(state) = &mut found.state {
            state.why = Some(proto::Problem {
                code: "plugin-exited".to_owned(),
                message: "it exited with status 1 after 12 ms; its last line on stderr: no such file or directory".to_owned(),
                details: vec!["stderr: no such file or directory".to_owned()],
                help: "look at it".to_owned(),
            });
        }
        insta::assert_snapshot!(plain(&portrait(&found)), @r"
        greeter 1.0.0
          state      backoff
          sandbox    unsandboxed: its manifest says `sandbox: require`
          protocol   grpc
          type       animal
          folder     /srv/plugins/greeter
          digest     sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
          process    start 3, started anew 2 times after failures
          last end   exited with status 1
          why        plugin-exited: it exited with status 1 after 12 ms; its last line
                     on stderr: no such file or directory
                     stderr: no such file or directory
          help       look at it
        ");
    }

    #[test]
    fn times_and_sizes_are_short() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_700, "1 h 1 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
        for (bytes, text) in [
            (0, "0.0 KiB"),
            (3 << 20, "3.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(fitted("abcdef", 4), "abc…");
        assert_eq!(fitted("abcd", 4), "abcd");
    }
}
