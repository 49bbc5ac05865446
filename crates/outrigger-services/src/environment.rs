//! Environment variables that were granted, and facts about the host.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use outrigger_manifest::{Grants, HostService};
use outrigger_wire::proto::host::*;
use tonic::{Code, Request, Response, Status};

use crate::fault::Fault;
use crate::fs::call::SessionFiles;
use crate::operation::{Described, Operation, described};
use crate::progress::Progress;
use crate::proto::host::environment_server;
use crate::running::Running;
use crate::session::Session;

described! {
    operation("get"), GetRequest { name }
    operation("list"), ListVariablesRequest {}
    operation("names"), NamesRequest {}
    operation("ids"), IdsRequest {}
    operation("dirs"), DirsRequest {}
    operation("host_info"), HostInfoRequest {}
}

const fn operation(name: &'static str) -> Operation {
    Operation::new(HostService::Environment, name)
}

pub(crate) const OPERATIONS: &[Operation] = &[
    GetRequest::OPERATION,
    ListVariablesRequest::OPERATION,
    NamesRequest::OPERATION,
    IdsRequest::OPERATION,
    DirsRequest::OPERATION,
    HostInfoRequest::OPERATION,
];

/// The longest value, in bytes; also bounded by what fits into a message.
const LONGEST_VALUE: usize = 128 << 10;

/// A granted variable.
pub(crate) struct Found {
    /// Nothing where the host has none.
    pub(crate) value: Option<String>,
    pub(crate) rule: String,
}

/// A variable: what the manifest sets, or what the host has where that was
/// granted.
pub(crate) fn get(grants: &Grants, name: &str) -> Result<Found, Fault> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Fault::abuse("not a variable's name"));
    }
    let environment = grants.environment();
    if let Some((_, value)) = environment.set().find(|(set, _)| *set == name) {
        return Ok(Found {
            value: Some(value.to_owned()),
            rule: "capabilities.environment.set".into(),
        });
    }
    let rule = environment.read(name)?.to_string();
    let value = match std::env::var_os(name) {
        None => None,
        Some(value) if value.len() > LONGEST_VALUE => return Err(too_long(LONGEST_VALUE)),
        Some(value) => Some(text(value)?),
    };
    Ok(Found { value, rule })
}

/// [`get`] for a reply, noted.
pub(crate) fn answer(
    session: &Session,
    progress: &Progress,
    name: &str,
) -> Result<Option<String>, Fault> {
    let Found { value, rule } = get(session.grants(), name)?;
    progress.allowed_by(&rule);
    let most = session.limits().payload();
    match &value {
        Some(value) if value.len() > most => Err(too_long(most)),
        _ => Ok(value),
    }
}

fn too_long(most: usize) -> Fault {
    let text = format!("the value is longer than {most} bytes");
    Fault::exhausted("value-too-long", text)
}

/// The names that [`get`] answers, each once.
pub(crate) fn names(grants: &Grants) -> Vec<&str> {
    let environment = grants.environment();
    let set = environment.set().map(|(name, _)| name);
    let mut names: Vec<&str> = environment.names().chain(set).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// All granted variables that are set, in at most `most` bytes.
fn list(grants: &Grants, most: usize) -> Result<BTreeMap<String, String>, Fault> {
    let mut variables = BTreeMap::new();
    let mut size = 0;
    for name in names(grants) {
        let value = match get(grants, name) {
            Ok(found) => found.value,
            Err(Fault::Failed { code, status, text }) => {
                let text = format!("variable {name}: {text}");
                return Err(Fault::failed_as(code, status, text));
            }
            Err(fault) => return Err(fault),
        };
        let Some(value) = value else { continue };
        // What a message needs for one of them.
        size += name.len() + value.len() + 16;
        if size > most {
            let text = format!("the variables do not fit into {most} bytes; ask for single ones");
            return Err(Fault::exhausted("reply-too-large", text));
        }
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

/// `outrigger.host.v1.Environment` for one plugin connection.
pub(crate) struct EnvironmentService(Arc<SessionFiles>);

impl EnvironmentService {
    pub(crate) fn new(files: Arc<SessionFiles>) -> Self {
        Self(files)
    }

    fn session(&self) -> &Arc<Session> {
        self.0.session()
    }
}

#[tonic::async_trait]
impl environment_server::Environment for EnvironmentService {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let work = async |running: &Running, request: GetRequest| {
            let value = answer(self.session(), running.progress(), &request.name)?;
            Ok(GetResponse {
                set: value.is_some(),
                value: value.unwrap_or_default(),
            })
        };
        self.session().call(request, work).await
    }

    async fn list(
        &self,
        request: Request<ListVariablesRequest>,
    ) -> Result<Response<ListVariablesResponse>, Status> {
        let work = async |_: &Running, _| {
            let variables = list(self.session().grants(), self.session().limits().payload())?;
            Ok(ListVariablesResponse {
                variables: HashMap::from_iter(variables),
            })
        };
        self.session().call(request, work).await
    }

    async fn names(
        &self,
        request: Request<NamesRequest>,
    ) -> Result<Response<NamesResponse>, Status> {
        let work = async |_: &Running, _| {
            let names = names(self.session().grants());
            Ok(NamesResponse {
                names: names.into_iter().map(str::to_owned).collect(),
            })
        };
        self.session().call(request, work).await
    }

    async fn ids(&self, request: Request<IdsRequest>) -> Result<Response<IdsResponse>, Status> {
        self.session().call(request, async |_, _| ids()).await
    }

    async fn dirs(&self, request: Request<DirsRequest>) -> Result<Response<DirsResponse>, Status> {
        let work = async |_: &Running, _| {
            let files = self.0.clone();
            let temp = self.session().blocking(move || files.temp_dir()).await?;
            let dir = |dir: UserDir| dir.find(|name| std::env::var_os(name)).unwrap_or_default();
            Ok(DirsResponse {
                temp: text(temp.into_os_string())?,
                home: dir(UserDir::Home),
                cache: dir(UserDir::Cache),
                config: dir(UserDir::Config),
            })
        };
        self.session().call(request, work).await
    }

    async fn host_info(
        &self,
        request: Request<HostInfoRequest>,
    ) -> Result<Response<HostInfoResponse>, Status> {
        let work = async |_: &Running, _| {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            Ok(HostInfoResponse {
                os: std::env::consts::OS.into(),
                architecture: std::env::consts::ARCH.into(),
                cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
                version: env!("CARGO_PKG_VERSION").into(),
            })
        };
        self.session().call(request, work).await
    }
}

fn ids() -> Result<IdsResponse, Fault> {
    use rustix::process;
    let groups = process::getgroups()?;
    Ok(IdsResponse {
        uid: process::getuid().as_raw(),
        gid: process::getgid().as_raw(),
        effective_uid: process::geteuid().as_raw(),
        effective_gid: process::getegid().as_raw(),
        groups: groups.into_iter().map(|group| group.as_raw()).collect(),
        pid: process::getpid().as_raw_nonzero().get(),
        // 0 when the parent is outside the host's process namespace, as the
        // system says it.
        parent_pid: process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()),
    })
}

/// A directory that depends on who runs the host.
#[derive(Clone, Copy)]
pub(crate) enum UserDir {
    Cache,
    Config,
    Home,
}

impl UserDir {
    /// Where it is, by the rules of Go's `os` package on Linux.
    pub(crate) fn find(self, get: impl Fn(&str) -> Option<OsString>) -> Result<String, Fault> {
        let (variable, below) = match self {
            Self::Cache => ("XDG_CACHE_HOME", ".cache"),
            Self::Config => ("XDG_CONFIG_HOME", ".config"),
            Self::Home => return home(get, "$HOME is not defined".into()),
        };
        match get(variable).filter(|dir| !dir.is_empty()) {
            Some(dir) if Path::new(&dir).is_absolute() => text(dir),
            Some(_) => Err(Fault::failed(format!("path in ${variable} is relative"))),
            None => {
                let missing = format!("neither ${variable} nor $HOME are defined");
                home(get, missing).map(|home| format!("{}/{below}", home.trim_end_matches('/')))
            }
        }
    }
}

fn home(get: impl Fn(&str) -> Option<OsString>, missing: String) -> Result<String, Fault> {
    match get("HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => text(dir),
        None => Err(Fault::failed(missing)),
    }
}

/// `value` as it is, if it is UTF-8.
pub(crate) fn text(value: OsString) -> Result<String, Fault> {
    value.into_string().map_err(|_| not_utf8())
}

fn not_utf8() -> Fault {
    Fault::failed_as(
        "not-utf8",
        Code::FailedPrecondition,
        "the value is not UTF-8",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(dir: UserDir, variables: &[(&str, &str)]) -> Result<String, String> {
        let get = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        };
        dir.find(get).map_err(|fault| fault.reason().into_owned())
    }

    #[test]
    fn user_directories_follow_gos_rules() {
        let home = [("HOME", "/home/ada")];
        assert_eq!(find(UserDir::Home, &home).as_deref(), Ok("/home/ada"));
        assert_eq!(
            find(UserDir::Cache, &home).as_deref(),
            Ok("/home/ada/.cache")
        );
        assert_eq!(
            find(UserDir::Config, &home).as_deref(),
            Ok("/home/ada/.config")
        );
        let both = [("HOME", "/home/ada"), ("XDG_CACHE_HOME", "/var/c")];
        assert_eq!(find(UserDir::Cache, &both).as_deref(), Ok("/var/c"));
        assert_eq!(
            find(UserDir::Config, &[("XDG_CONFIG_HOME", "x")]),
            Err("path in $XDG_CONFIG_HOME is relative".into())
        );
        assert_eq!(
            find(UserDir::Cache, &[("HOME", "")]),
            Err("neither $XDG_CACHE_HOME nor $HOME are defined".into())
        );
        assert_eq!(find(UserDir::Home, &[]), Err("$HOME is not defined".into()));
    }

    #[test]
    fn a_value_that_is_not_utf8_is_an_error_of_its_own() {
        use std::os::unix::ffi::OsStringExt;

        let fault = text(OsString::from_vec(vec![b'a', 0xff])).expect_err("not UTF-8");
        assert_eq!(fault.code(), "not-utf8");
    }
}
