//! What the demo does with one plugin after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use outrigger::{
    AuditReceiver, Channel, Coded as _, Deadlines, GrantedServices, HostServices, Launch,
    LaunchError, PluginExited, PluginSet, RunningPlugin, Serving,
};
use outrigger_examples::hosted::chain;
use outrigger_examples::proto::filelister::file_lister_client::FileListerClient;
use outrigger_examples::proto::filelister::{FileListRequest, HostServiceRequest};
use outrigger_examples::proto::hostdemo::host_demo_client::HostDemoClient;
use outrigger_examples::proto::hostdemo::{
    self, CreateDemoReq, EnvDemoReq, GetEnvDemoReq, ReadFrankensteinReq, TempDemoReq,
};
use outrigger_examples::{FileLister, HostDemo, host_services_cookie};
use tonic::{Code, Response, Status};

use crate::animal;
use crate::screen::{Screen, count, printable, took};
use crate::words::Words;

/// How long a program may take to become a plugin.
const START: Duration = Duration::from_secs(15);
/// How long a plugin may take for one call.
const CALL: Duration = Duration::from_secs(20);
/// The largest answer of a plugin, in bytes.
const ANSWER: usize = 16 << 20;
/// How many lines of a listing are shown.
const ENTRIES: usize = 6;
/// How many lines of another answer are shown.
const LINES: usize = 12;
/// How many lines of the text are shown.
const TEXT_LINES: usize = 3;
/// How many plugins are started from one folder.
const MOST: usize = 100;

/// The folder and file that the host demo makes.
const MADE: (&str, &str) = ("made/on/request", "note.txt");

/// A variable that nobody granted.
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";

/// What may help a plugin that was refused something.
const REFUSED: &str = "it asked for more than was granted; plugins may change what they list \
    where both `--plugins` and `--dir` are named, without `--read-only`";
/// What may help with a plugin of another kind.
const STRANGER: &str =
    "`outrigger inspect --cookie TEST_KEY=TEST_VALUE -- PROGRAM` shows what it serves";

/// What the host offers.
pub(crate) struct Offered {
    /// The directory that is listed.
    pub(crate) root: String,
    /// Services over that directory, for listers.
    pub(crate) listed: GrantedServices,
    /// The directory that the host demo works in.
    pub(crate) granted: PathBuf,
    /// Services over it.
    pub(crate) shown: GrantedServices,
    /// What is decided for the host demo.
    pub(crate) audit: Mutex<AuditReceiver>,
}

impl Offered {
    /// The records since the last time.
    fn audit_now(&self) -> Vec<String> {
        let mut audit = self.audit.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| audit.try_recv())
            .map(|record| record.to_string())
            .collect()
    }

    fn forget_audit(&self) {
        self.audit_now();
    }
}

/// A plugin in the folder.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

/// The plugins of a folder, by name. The program is what the manifest in `NAME`
/// names, or `NAME/NAME` where there is no manifest.
pub(crate) fn find(folder: &Path) -> Result<Vec<Found>> {
    let unreadable = || format!("could not look into {}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let Some(file_name) = path.file_name() else {
            continue;
        };
        let name = file_name.to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') {
            found.push(Found { name, folder: path });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    match found.len() {
        0 => bail!(
            "{} has no plugins; they are FOLDER/NAME/NAME",
            folder.display()
        ),
        1..=MOST => Ok(found),
        n => bail!("{} has {n} plugins, more than {MOST}", folder.display()),
    }
}

/// The plugins that run, and what is said about them.
pub(crate) struct Guests<'a> {
    screen: &'a Screen,
    offered: &'a Offered,
    labels: BTreeMap<String, String>,
    running: Vec<(Found, RunningPlugin)>,
    serving: Vec<Serving>,
    /// The names of those with which something went wrong.
    failed: BTreeSet<String>,
    /// The one that is visited, and what it logs.
    current: (String, Words),
}

/// What is left of the visits.
pub(crate) struct Visited {
    pub(crate) running: Vec<(Found, RunningPlugin)>,
    /// The names of those with which something went wrong.
    pub(crate) failed: BTreeSet<String>,
    _serving: Vec<Serving>,
}

/// Why the visit of a plugin went no further.
struct Trouble {
    code: &'static str,
    text: String,
    causes: Vec<String>,
    help: Option<String>,
}

impl<'a> Guests<'a> {
    pub(crate) fn new(
        screen: &'a Screen,
        offered: &'a Offered,
        labels: BTreeMap<String, String>,
    ) -> Self {
        Self {
            screen,
            offered,
            labels,
            running: Vec::new(),
            serving: Vec::new(),
            failed: BTreeSet::new(),
            current: Default::default(),
        }
    }

    pub(crate) fn leave(self) -> Visited {
        Visited {
            running: self.running,
            failed: self.failed,
            _serving: self.serving,
        }
    }

    /// Starts one plugin, lets it do its work and says what it did.
    pub(crate) async fn visit(&mut self, found: &Found) {
        let name = self.screen.heading(&printable(&found.name));
        let label = match self.labels.get(&found.name) {
            Some(label) => format!(" ({})", printable(label)),
            None => String::new(),
        };
        self.screen.blank();
        let words = Words::default();
        self.current = (found.name.clone(), words.clone());
        let (installed, launch) = match launch(found) {
            Ok(launch) => launch,
            Err(error) => {
                self.screen.line(&format!("{name}{label} was not started"));
                return self.report(Trouble::installed(&error));
            }
        };
        let started = launch
            .deadlines(deadlines())
            .stderr(words.listener())
            .start()
            .await;
        let plugin = match started {
            Ok(plugin) => plugin,
            Err(error) => {
                self.screen.line(&format!("{name}{label} did not start"));
                return self.report(Trouble::starting(&error));
            }
        };
        if let Some(protection) = installed {
            self.hear(&plugin, &format!("{name}{label}"), protection)
                .await;
            self.running.push((found.clone(), plugin));
            return;
        }
        let after = took(plugin.timings().total());
        self.screen
            .line(&format!("{name}{label} answers after {after}"));
        if let Err(trouble) = self.talk(&plugin).await {
            self.report(trouble);
        }
        self.running.push((found.clone(), plugin));
    }

    /// Lets an animal speak and says what came.
    async fn hear(&mut self, plugin: &RunningPlugin, name: &str, protection: &str) {
        let (after, transport) = (took(plugin.timings().total()), plugin.transport());
        self.screen.line(&format!(
            "{name} answers after {after}, over {transport} with {protection}"
        ));
        match animal::hear(plugin).await {
            Ok(said) => self
                .screen
                .line(&format!("  says {}", self.screen.foreign(&said))),
            Err(text) => self.report(Trouble::new("animal-silent", printable(&text))),
        }
    }

    fn report(&mut self, trouble: Trouble) {
        let (name, words) = &self.current;
        let said = words
            .take()
            .into_iter()
            .map(|line| format!("it logged: {line}"));
        let help = trouble.help.map(|help| format!("help: {help}"));
        let notes = trouble.causes.into_iter().chain(said).chain(help);
        self.screen.problem(trouble.code, &trouble.text, notes);
        self.failed.insert(name.clone());
    }

    /// Finds out what the plugin is by offering it services, as only its own
    /// kind knows the call.
    async fn talk(&mut self, plugin: &RunningPlugin) -> Result<(), Trouble> {
        let mut lister = lister(plugin).await?;
        let id = self.serve(plugin, &self.offered.listed).await?;
        let offer = HostServiceRequest { host_service: id };
        match ask(lister.establish_host_services(offer)).await {
            Ok(reply) => {
                refused("EstablishHostServices", reply.error)?;
                // One that has connected already would dial the id in vain.
                let for_list = if reply.client_id.is_empty() { id } else { 0 };
                self.list(lister, for_list).await
            }
            Err(status) if status.code() == Code::Unimplemented => {
                let mut demo = demo(plugin).await?;
                let other = self.serve(plugin, &self.offered.shown).await?;
                let offer = hostdemo::HostServiceRequest {
                    host_service: other,
                };
                match ask(demo.establish_host_services(offer)).await {
                    Ok(reply) => {
                        refused("EstablishHostServices", reply.error)?;
                        self.show(demo).await;
                        Ok(())
                    }
                    Err(status) if status.code() == Code::Unimplemented => {
                        self.list(lister, id).await
                    }
                    Err(status) => Err(Trouble::calling("EstablishHostServices", &status)),
                }
            }
            Err(status) => Err(Trouble::calling("EstablishHostServices", &status)),
        }
    }

    /// Serves `services` to this plugin for as long as it runs.
    async fn serve(
        &mut self,
        plugin: &RunningPlugin,
        services: &dyn HostServices,
    ) -> Result<u32, Trouble> {
        let serving = plugin.serve(services).await;
        let serving =
            serving.map_err(|error| Trouble::new(error.code(), printable(&chain(&error))))?;
        let id = serving.id().0;
        self.serving.push(serving);
        Ok(id)
    }

    async fn list(&self, mut lister: FileListerClient<Channel>, id: u32) -> Result<(), Trouble> {
        let request = FileListRequest {
            root_dir: self.offered.root.clone(),
            path: ".".into(),
            host_service: id,
        };
        let asked = Instant::now();
        let listed = match ask(lister.list(request)).await {
            Ok(listed) => listed,
            Err(status) if status.code() == Code::Unimplemented => return Err(Trouble::stranger()),
            Err(status) => return Err(Trouble::calling("List", &status)),
        };
        let after = took(asked.elapsed());
        refused("List", listed.error)?;
        let through = if id == 0 {
            " through the host"
        } else {
            " and needed no host services"
        };
        let entries = count(listed.entry.len(), "entry");
        self.screen
            .line(&format!("  listed {entries}{through} in {after}"));
        for entry in listed.entry.iter().take(ENTRIES) {
            self.screen
                .line(&format!("    {}", self.screen.foreign(entry)));
        }
        if let Some(more @ 1..) = listed.entry.len().checked_sub(ENTRIES) {
            self.screen
                .line(&self.screen.dim(&format!("    … and {more} more")));
        }
        Ok(())
    }

    /// Lets the host demo show each thing it can do; one that fails does not
    /// keep the others from it.
    async fn show(&mut self, mut demo: HostDemoClient<Channel>) {
        let request = GetEnvDemoReq { key: "HOME".into() };
        let reply = ask(demo.get_env_demo(request))
            .await
            .map(|reply| (reply.resp, reply.error));
        self.demo("GetEnvDemo", reply, LINES);

        let reply = ask(demo.env_demo(EnvDemoReq {}))
            .await
            .map(|reply| (reply.resp, reply.error));
        self.demo("EnvDemo", reply, LINES);

        let request = TempDemoReq {
            pattern: "demo-*".into(),
            text_to_write: "a note that nobody keeps".into(),
        };
        let reply = ask(demo.temp_demo(request))
            .await
            .map(|reply| (reply.resp, reply.error));
        self.demo("TempDemo", reply, LINES);

        let (dir_to_create, file_to_create) = (MADE.0.to_owned(), MADE.1.to_owned());
        let request = CreateDemoReq {
            dir_to_create,
            file_to_create,
        };
        let reply = ask(demo.create_dir_file_demo(request)).await;
        self.demo(
            "CreateDirFileDemo",
            reply.map(|reply| (reply.demo_resp, reply.error)),
            LINES,
        );
        let made = self.offered.granted.join(MADE.0).join(MADE.1);
        if let Ok(made) = std::fs::metadata(made) {
            self.screen
                .line(&format!("    the host finds it too: {} bytes", made.len()));
        }

        let reply = ask(demo.read_frankenstein(ReadFrankensteinReq {})).await;
        self.demo(
            "ReadFrankenstein",
            reply.map(|reply| (reply.frank, reply.error)),
            TEXT_LINES,
        );
        self.try_grants(demo).await;
    }

    /// Asks for one variable that was granted and one that was not, and shows
    /// what the host's audit keeps of both.
    async fn try_grants(&mut self, mut demo: HostDemoClient<Channel>) {
        self.offered.forget_audit();
        self.screen.line("  What the host's audit says of");
        for (key, granted, names) in [("HOME", true, "names"), (SECRET, false, "does not name")] {
            let key = key.to_owned();
            let reply = match ask(demo.get_env_demo(GetEnvDemoReq { key: key.clone() })).await {
                Ok(reply) => reply,
                Err(status) => return self.report(Trouble::calling("GetEnvDemo", &status)),
            };
            if granted == reply.error.is_some() {
                let text = format!("{key} should have been {}", allowed(granted));
                return self.report(Trouble::new("grant-not-kept", text));
            }
            self.screen
                .line(&format!("    reading {key}, which the manifest {names}"));
            for record in self.offered.audit_now() {
                self.screen.line(&format!("      {}", printable(&record)));
            }
        }
    }

    fn demo(
        &mut self,
        name: &'static str,
        reply: Result<(String, Option<String>), Status>,
        most: usize,
    ) {
        let text = match reply {
            Ok((_, Some(error))) => return self.report(Trouble::told(name, &error)),
            Err(status) => return self.report(Trouble::calling(name, &status)),
            Ok((text, None)) => text,
        };
        self.screen.line(&format!("  {name}"));
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        for line in lines.iter().take(most) {
            self.screen
                .line(&format!("    {}", self.screen.foreign(line)));
        }
        match (lines.len().checked_sub(most), lines.last()) {
            // The last line often says how much there was.
            (Some(2..), Some(last)) => {
                let left_out = lines.len() - most - 1;
                self.screen
                    .line(&self.screen.dim(&format!("    … {left_out} more lines")));
                self.screen
                    .line(&format!("    {}", self.screen.foreign(last)));
            }
            (Some(1), Some(last)) => self
                .screen
                .line(&format!("    {}", self.screen.foreign(last))),
            _ => {}
        }
    }
}

/// How a plugin is started, and what protects it if it is an animal: as its manifest
/// says, or as a lister where it has none.
fn launch(found: &Found) -> Result<(Option<&'static str>, Launch), outrigger::Error> {
    let Some(plugin) = animal::installed(&found.folder)? else {
        let program = found.folder.join(&found.name);
        let launch = Launch::new(program, host_services_cookie()).named(&found.name);
        return Ok((None, launch.offer(1, PluginSet::new())));
    };
    let launch = plugin.launch()?;
    let protection = animal::is_animal(&plugin).then(|| animal::protection(&plugin));
    Ok((protection.transpose()?, launch))
}

fn deadlines() -> Deadlines {
    Deadlines {
        start: START,
        ..Deadlines::default()
    }
}

async fn lister(plugin: &RunningPlugin) -> Result<FileListerClient<Channel>, Trouble> {
    let client = plugin
        .client::<FileLister>()
        .await
        .map_err(|error| Trouble::internal(&error))?;
    Ok(client.max_decoding_message_size(ANSWER))
}

async fn demo(plugin: &RunningPlugin) -> Result<HostDemoClient<Channel>, Trouble> {
    let client = plugin
        .client::<HostDemo>()
        .await
        .map_err(|error| Trouble::internal(&error))?;
    Ok(client.max_decoding_message_size(ANSWER))
}

/// Waits for the answer to one call, but not for ever.
async fn ask<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL, call).await {
        Ok(reply) => reply.map(Response::into_inner),
        Err(_) => {
            let text = format!("no answer within {} s", CALL.as_secs());
            Err(Status::deadline_exceeded(text))
        }
    }
}

fn allowed(granted: bool) -> &'static str {
    if granted { "allowed" } else { "refused" }
}

/// An error inside an answer.
fn refused(call: &'static str, error: Option<String>) -> Result<(), Trouble> {
    error.map_or(Ok(()), |error| Err(Trouble::told(call, &error)))
}

impl Trouble {
    fn new(code: &'static str, text: String) -> Self {
        Self {
            code,
            text,
            causes: Vec::new(),
            help: None,
        }
    }

    fn starting(error: &LaunchError) -> Self {
        let mut trouble = Self::new(error.code(), printable(&error.to_string()));
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            let cause_text = printable(&cause.to_string());
            trouble.causes.push(format!("because {cause_text}"));
            source = cause.source();
        }
        trouble.help = error.hint().map(|hint| printable(&hint));
        trouble
    }

    /// The plugin cannot be had.
    fn installed(error: &outrigger::Error) -> Self {
        let mut trouble = Self::new(error.code(), printable(&error.to_string()));
        trouble.causes = error.details();
        trouble.help = error.hint().map(|hint| printable(&hint));
        trouble
    }

    /// The plugin answered that it did not work.
    fn told(call: &'static str, error: &str) -> Self {
        let text = format!("{call} did not work: {}", printable(error));
        let mut trouble = Self::new("plugin-reported", text);
        if error.contains("not permitted by the host") {
            trouble.help = Some(REFUSED.into());
        }
        trouble
    }

    /// The call itself failed.
    fn calling(call: &'static str, status: &Status) -> Self {
        if let Some(exited) = PluginExited::behind(status) {
            let text = format!("{call} got no answer: the plugin {}", exited.report.status);
            return Self::new(exited.code(), text);
        }
        let message = printable(status.message());
        let text = format!("{call} failed with {:?}: {message}", status.code());
        Self::new("call-failed", text)
    }

    fn stranger() -> Self {
        let text = "it serves neither filelister.v1.FileLister nor hostdemo.v1.HostDemo";
        let mut trouble = Self::new("unknown-service", text.into());
        trouble.help = Some(STRANGER.into());
        trouble
    }

    fn internal(error: &dyn std::error::Error) -> Self {
        Self::new("internal", chain(error))
    }
}
