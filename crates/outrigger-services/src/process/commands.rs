//! Commands that a plugin may run, from their judgement to the process.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use outrigger_manifest::{Grants, Permissions};
use outrigger_wire::Excerpt;
use outrigger_wire::proto::host::{Command, StartResponse};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::OwnedMutexGuard;
use tonic::Code;

use super::output::Outputs;
use super::processes::{Process, Processes, Room};
use super::program::{Program, ProgramError, Programs};
use super::spawn::Order;
use super::variables::{self, BadVariable};
use crate::environment;
use crate::fault::Fault;
use crate::fs::call::SessionFiles;
use crate::fs::resolve::granted_dir;
use crate::leases::{Leased, Slot};
use crate::running::Running;
use crate::session::Session;

/// The most arguments of a command.
const MOST_ARGUMENTS: usize = 4096;
/// The most bytes of a command's arguments and environment together.
const LONGEST_ARGUMENTS: usize = 1 << 20;

/// The commands of one plugin connection; clones are the same ones.
#[derive(Clone)]
pub(crate) struct Commands {
    session: Arc<Session>,
    files: Arc<SessionFiles>,
    programs: Arc<Programs>,
    processes: Arc<Processes>,
}

/// [`Commands`] as long as something else has them.
#[derive(Clone)]
pub(crate) struct WeakCommands {
    files: Weak<SessionFiles>,
    programs: Arc<Programs>,
    processes: Weak<Processes>,
}

impl WeakCommands {
    pub(crate) fn upgrade(&self) -> Option<Commands> {
        let files = self.files.upgrade()?;
        Some(Commands {
            session: files.session().clone(),
            files,
            programs: self.programs.clone(),
            processes: self.processes.upgrade()?,
        })
    }
}

impl Commands {
    pub(crate) fn downgrade(&self) -> WeakCommands {
        WeakCommands {
            files: Arc::downgrade(&self.files),
            programs: self.programs.clone(),
            processes: Arc::downgrade(&self.processes),
        }
    }

    pub(crate) fn new(files: Arc<SessionFiles>, programs: Arc<Programs>) -> Self {
        let session = files.session().clone();
        let pids = session.grants().resources().pids;
        let pids = pids.map_or(usize::MAX, |pids| {
            usize::try_from(pids).unwrap_or(usize::MAX)
        });
        let most = pids.min(session.limits().leases);
        Self {
            processes: Arc::new(Processes::new(most)),
            session,
            files,
            programs,
        }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Decides whether a command may run.
    fn judge(&self, command: &Command, running: &Running) -> Result<Judged, Fault> {
        let bytes = |text: &String| text.len() + 1;
        let size: usize = command.args.iter().map(bytes).sum::<usize>()
            + command
                .environment
                .iter()
                .map(|(name, value)| bytes(name) + bytes(value))
                .sum::<usize>();
        if command.args.len() > MOST_ARGUMENTS || size > LONGEST_ARGUMENTS {
            return Err(Fault::exhausted(
                "arguments-too-long",
                format!(
                    "at most {MOST_ARGUMENTS} arguments, {LONGEST_ARGUMENTS} bytes with the environment"
                ),
            ));
        }
        if command.args.iter().any(|arg| arg.contains('\0')) {
            return Err(Fault::abuse("an argument holds a zero byte"));
        }
        let grants = self.session.grants();
        let grant = grants.process().exec(&command.command, &command.args)?;
        let variables = command.environment.iter();
        let rules = variables.map(|(name, value)| judge_variable(grants, name, value));
        let rules: Vec<String> = rules.collect::<Result<_, _>>()?;
        running.allowed_by(&grant.rule().to_string());
        for rule in rules {
            running.allowed_by(&rule);
        }
        let program = self.programs.get(grant);
        let program = program.map_err(unusable)?;
        Ok(Judged {
            program,
            name: grant.command().to_string_lossy().into_owned(),
        })
    }

    /// Room for one more process, if need be that of one that has ended.
    fn room(&self) -> Result<(Slot, Room), Fault> {
        let slot = self.session.slot()?;
        loop {
            if let Some(room) = self.processes.room() {
                return Ok((slot, room));
            }
            if !self.session.leases().forget_ended() {
                let most = self.processes.most();
                let text = format!("{most} processes are there already (`pids`, `leases`)");
                return Err(Fault::exhausted("too-many-processes", text));
            }
        }
    }

    /// Judges a command and starts it.
    pub(super) async fn start_process(
        &self,
        command: Command,
        running: &Running,
    ) -> Result<(Slot, Process), Fault> {
        let judged = self.judge(&command, running)?;
        let (slot, room) = self.room()?;
        let (processes, progress) = (self.processes.clone(), running.progress().clone());
        let files = self.files.clone();
        let started = self.session.blocking(move || {
            let session = files.session();
            let home = processes.home(&files.settings.temp_root, session.identity())?;
            let directory = if command.directory.is_empty() {
                // What the plugin could write there, many programs would obey.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::openat(CWD, home, flags, Mode::empty())?
            } else {
                let granted = granted_dir(&files, &command.directory, Permissions::READ);
                let (directory, rule) = granted?;
                progress.allowed_by(&rule);
                directory
            };
            let environment = variables::compose(home, processes.variable(), &command.environment);
            let order = Order {
                program: judged.program,
                name: judged.name,
                arguments: command.args,
                environment,
                directory,
                open_files: session.grants().resources().open_files.map(u64::from),
            };
            Ok(processes.start(room, order)?)
        });
        // Given up meanwhile, the process is dropped, which ends it.
        Ok((slot, started.await?))
    }

    /// [`start_process`](Self::start_process) with its pipes handed over: what
    /// `Start` answers, and stdin, stdout and stderr.
    pub(crate) async fn start_with_pipes(
        &self,
        command: Command,
        running: &Running,
    ) -> Result<(StartResponse, [OwnedFd; 3]), Fault> {
        let (slot, process) = self.start_process(command, running).await?;
        let pipes = process.take_pipes().await?;
        Ok((self.keep(slot, process), pipes))
    }

    /// Names a process that lasts until it is ended.
    pub(super) fn keep(&self, slot: Slot, process: Process) -> StartResponse {
        let pid = process.child.pid().as_raw_nonzero().get();
        let (process, _) = self.session.lend(slot, process);
        StartResponse { process, pid }
    }

    /// [`start_process`](Self::start_process) of a process that lasts no longer
    /// than the call, which alone takes its output.
    pub(super) async fn hold_process(
        &self,
        command: Command,
        running: &Running,
    ) -> Result<(CallProcess, OwnedMutexGuard<Outputs>), Fault> {
        let (slot, process) = self.start_process(command, running).await?;
        let outputs = process.outputs.clone().lock_owned().await;
        let (id, process) = self.session.lend(slot, process);
        let session = self.session.clone();
        let held = CallProcess {
            session,
            id,
            process,
        };
        Ok((held, outputs))
    }

    pub(super) fn find(&self, id: &str) -> Result<Arc<Leased<Process>>, Fault> {
        self.session.lease(id)
    }
}

/// A command that may run.
struct Judged {
    program: Arc<Program>,
    name: String,
}

/// A process that ends with this value.
pub(super) struct CallProcess {
    session: Arc<Session>,
    pub(super) id: String,
    pub(super) process: Arc<Leased<Process>>,
}

impl Drop for CallProcess {
    fn drop(&mut self) {
        // Another call may still hold the process: it must end all the same.
        self.process.child.kill();
        drop(self.session.give_back::<Process>(&self.id));
    }
}

/// Whether a command may have this variable with this value, and which grant
/// says so. The values are the operator's: many programs obey them.
fn judge_variable(grants: &Grants, name: &str, value: &str) -> Result<String, Fault> {
    variables::check(name, value).map_err(bad_variable)?;
    let granted = environment::get(grants, name)?;
    if granted.value.as_deref() == Some(value) {
        return Ok(granted.rule);
    }
    let missing = format!("capabilities.environment.set: {{{name}: VALUE}}");
    Err(Fault::Ungranted {
        code: "value-not-granted",
        text: format!(
            "variable {}: a command gets the granted value (`Environment.Get`) and no other; \
             that would need {missing} in place of `read`",
            Excerpt::from(name)
        ),
        missing,
    })
}

fn bad_variable(error: BadVariable) -> Fault {
    match error {
        BadVariable::NotAName | BadVariable::ZeroByte => Fault::abuse(error.to_string()),
        BadVariable::Fixed | BadVariable::Steering => Fault::refused(error.to_string()),
    }
}

fn unusable(error: ProgramError) -> Fault {
    let status = match error {
        ProgramError::Elsewhere(unserved) => return Fault::refused(unserved.to_string()),
        ProgramError::Unreadable(Errno::NOENT) => Code::NotFound,
        _ => Code::FailedPrecondition,
    };
    Fault::failed_as("program-unusable", status, error.to_string())
}
