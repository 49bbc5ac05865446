//! What one plugin connection holds, and how its operations are run: bounded,
//! recorded, and never waiting on a thread that serves others.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use outrigger_transport::PluginIdentity;
use rustix::process::{Gid, Uid};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::area::{self, Access, Place};
use crate::describe::{Describe, Reply};
use crate::environment::EnvironmentGrant;
use crate::fault::{Fault, Told};
use crate::handles::Lease;
use crate::limits::Limits;
use crate::root::Root;
use crate::temp::TempArea;
use crate::text::Quoted;

/// What was granted to every plugin that one service value serves.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) root: Root,
    pub(crate) access: Access,
    pub(crate) ownership: Ownership,
    pub(crate) environment: EnvironmentGrant,
    pub(crate) temp_root: PathBuf,
    pub(crate) limits: Limits,
}

/// Whether files may be given to someone else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Only to the host's own user and group.
    Own,
    /// To whomever the kernel allows.
    Any,
}

/// One plugin's connection.
pub(crate) struct Session {
    pub(crate) granted: Arc<Granted>,
    identity: PluginIdentity,
    temp: OnceLock<TempArea>,
    making_temp: Mutex<()>,
    handles: Mutex<HashMap<u128, Arc<Lease>>>,
    slots: Arc<Semaphore>,
    blocking: Arc<Semaphore>,
}

/// How an operation is run.
pub(crate) enum Work<Q, R> {
    /// On the spot: it waits for nothing.
    Now(fn(&Session, &Q) -> Result<R, Fault>),
    /// On a thread of its own.
    Blocking(fn(&Session, &Q) -> Result<R, Fault>),
    /// The first on the spot; the second on a thread if the first finds that it
    /// would have to wait.
    Try(
        fn(&Session, &Q) -> Option<Result<R, Fault>>,
        fn(&Session, &Q) -> Result<R, Fault>,
    ),
}

impl Session {
    pub(crate) fn new(granted: Arc<Granted>, identity: PluginIdentity) -> Self {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let limits = &granted.limits;
        Self {
            temp: OnceLock::new(),
            making_temp: Mutex::new(()),
            handles: Mutex::new(HashMap::new()),
            slots: permits(limits.handles),
            blocking: permits(limits.blocking),
            identity,
            granted,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.granted.limits
    }

    /// Where `path`, seen from `root_dir`, lies within what was granted.
    ///
    /// An absolute path must name something beneath the granted directory or
    /// beneath this plugin's temporary one, and then stands for itself. A
    /// relative one is taken from `root_dir`, which is relative to the granted
    /// directory, or absolute by the same rule; its text must not lead above
    /// `root_dir`. Everything after that is the kernel's resolution beneath the
    /// directory's handle.
    pub(crate) fn place(&self, root_dir: &str, path: &str) -> Result<Place<'_>, Fault> {
        area::check_path(root_dir)?;
        area::check_path(path)?;
        let (root_dir, path) = (Path::new(root_dir), Path::new(path));
        if path.is_absolute() {
            return self.absolute(&area::clean(path));
        }
        if area::leaves_start(path) {
            return Err(Fault::Outside);
        }
        let place = if root_dir.is_absolute() {
            let joined = area::clean(root_dir).join(path);
            match self.absolute(&joined) {
                Err(Fault::Outside) => self.absolute(&area::clean(&joined))?,
                place => place?,
            }
        } else {
            let path = match root_dir.to_str() {
                Some("" | "." | "./") => path.to_owned(),
                _ => root_dir.join(path),
            };
            Place {
                area: &self.granted.root.0,
                path,
                access: self.granted.access,
            }
        };
        match place.path.as_os_str().len() {
            area::MAX_PATH.. => Err(Fault::System(rustix::io::Errno::NAMETOOLONG)),
            _ => Ok(place),
        }
    }

    fn absolute(&self, path: &Path) -> Result<Place<'_>, Fault> {
        if let Some(temp) = self.temp.get()
            && let Some(rest) = temp.area().relative(path)
        {
            return Ok(self.temp_place(temp, rest.to_owned()));
        }
        let area = &*self.granted.root.0;
        match area.relative(path) {
            Some(rest) => Ok(Place {
                area,
                path: rest.to_owned(),
                access: self.granted.access,
            }),
            None => Err(Fault::Outside),
        }
    }

    fn temp_place<'a>(&self, temp: &'a TempArea, path: PathBuf) -> Place<'a> {
        temp.note_changes(path.components().count());
        Place {
            area: temp.area(),
            path,
            access: Access::ReadWrite,
        }
    }

    /// A place in this plugin's temporary directory, which is made if needed.
    pub(crate) fn in_temp(&self, name: &str) -> Result<Place<'_>, Fault> {
        Ok(self.temp_place(self.temp()?, name.into()))
    }

    /// The temporary directory if it exists already.
    pub(crate) fn temp_if_made(&self) -> Option<&TempArea> {
        self.temp.get()
    }

    /// The temporary directory, which is made if needed.
    pub(crate) fn temp(&self) -> Result<&TempArea, Fault> {
        let _making = self
            .making_temp
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.temp.get().is_none() {
            // The lock makes this the only writer.
            let _ = self.temp.set(TempArea::create(&self.granted.temp_root)?);
        }
        self.temp.get().ok_or(Fault::Broken)
    }

    /// The owners that a plugin asks for, where they may be given.
    pub(crate) fn owners(&self, uid: i32, gid: i32) -> Result<(Option<Uid>, Option<Gid>), Fault> {
        let id = |id: i32| match id {
            -1 => Ok(None),
            id => u32::try_from(id)
                .map(Some)
                .map_err(|_| Fault::System(rustix::io::Errno::INVAL)),
        };
        let (uid, gid) = (id(uid)?.map(Uid::from_raw), id(gid)?.map(Gid::from_raw));
        let own = uid.is_none_or(|uid| uid == rustix::process::geteuid())
            && gid.is_none_or(|gid| gid == rustix::process::getegid());
        match self.granted.ownership {
            Ownership::Any => Ok((uid, gid)),
            Ownership::Own if own => Ok((uid, gid)),
            Ownership::Own => Err(Fault::Refused("giving files to others is not granted")),
        }
    }

    /// Room for one more open file.
    pub(crate) fn slot(&self) -> Result<OwnedSemaphorePermit, Fault> {
        self.slots.clone().try_acquire_owned().map_err(|_| {
            let limit = self.limits().handles;
            Fault::Exhausted(format!("{limit} files are open already (`handles`)"))
        })
    }

    /// Keeps an open file and names it.
    pub(crate) fn lend(&self, lease: Lease) -> String {
        // The fixed bits of the one are covered by random bits of the other.
        let id = Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(64);
        self.table().insert(id, Arc::new(lease));
        format!("{id:032x}")
    }

    /// The open file of that name; names of other connections mean nothing here.
    pub(crate) fn lease(&self, handle: &str) -> Result<Arc<Lease>, Fault> {
        let id = handle_id(handle)?;
        self.table().get(&id).cloned().ok_or(Fault::UnknownHandle)
    }

    /// Takes an open file back.
    pub(crate) fn give_back(&self, handle: &str) -> Result<Arc<Lease>, Fault> {
        let id = handle_id(handle)?;
        self.table().remove(&id).ok_or(Fault::UnknownHandle)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<u128, Arc<Lease>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on a thread that may wait, within `call_timeout`.
    ///
    /// A plugin never has more than `blocking` such threads: work that is given
    /// up keeps its place until the system lets go of it.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Session) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let run = async {
            let permit = self
                .blocking
                .clone()
                .acquire_owned()
                .await
                .map_err(|_| Fault::Broken)?;
            let session = self.clone();
            let work = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work(&session)
            });
            work.await.unwrap_or(Err(Fault::Broken))
        };
        match tokio::time::timeout(self.limits().call_timeout, run).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::Deadline),
        }
    }

    /// Runs one unary operation and records it.
    pub(crate) async fn call<Q, R>(
        self: &Arc<Self>,
        operation: &'static str,
        request: Request<Q>,
        work: Work<Q, R>,
    ) -> Result<Response<R>, Status>
    where
        Q: Describe + Send + Sync + 'static,
        R: Reply + Send + 'static,
    {
        let (metadata, _, message) = request.into_parts();
        let call = Call {
            session: self,
            operation,
            metadata: &metadata,
            started: Instant::now(),
        };
        let (now, later) = match work {
            Work::Now(now) => (Some(now(self, &message)), None),
            Work::Try(now, later) => (now(self, &message), Some(later)),
            Work::Blocking(later) => (None, Some(later)),
        };
        match (now, later) {
            (Some(outcome), _) => call.finish(&message, outcome),
            (None, Some(later)) => {
                let message = Arc::new(message);
                let shared = message.clone();
                let outcome = self.blocking(move |session| later(session, &shared)).await;
                call.finish(&*message, outcome)
            }
            (None, None) => call.finish(&message, Err(Fault::Broken)),
        }
    }
}

fn handle_id(handle: &str) -> Result<u128, Fault> {
    if handle.len() != 32 || !handle.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Fault::UnknownHandle);
    }
    u128::from_str_radix(handle, 16).map_err(|_| Fault::UnknownHandle)
}

/// One call as the log shows it.
pub(crate) struct Call<'a> {
    pub(crate) session: &'a Session,
    pub(crate) operation: &'static str,
    pub(crate) metadata: &'a MetadataMap,
    pub(crate) started: Instant,
}

impl Call<'_> {
    /// Records how the call ended and makes its answer.
    pub(crate) fn finish<R: Reply>(
        &self,
        request: &impl Describe,
        outcome: Result<R, Fault>,
    ) -> Result<Response<R>, Status> {
        self.record(request, outcome.as_ref().err());
        match outcome {
            Ok(reply) => Ok(Response::new(reply)),
            Err(fault) => failed(self.operation, request.subject(), &fault).map(Response::new),
        }
    }

    /// Writes the one event of this call: plainly for what worked or failed,
    /// as a warning for what was refused.
    pub(crate) fn record(&self, request: &impl Describe, fault: Option<&Fault>) {
        match fault {
            None => {
                tracing::debug!(
                    target: "outrigger_services::hostserve",
                    plugin = self.session.identity.name(),
                    instance = self.session.identity.instance(),
                    operation = self.operation,
                    client = %self.said("client"),
                    request = %self.said("request"),
                    arguments = %request.arguments(),
                    duration_us = self.micros(),
                    success = true,
                    "host service call"
                );
            }
            Some(fault) if fault.is_refusal() => {
                tracing::warn!(
                    target: "outrigger_services::hostserve",
                    plugin = self.session.identity.name(),
                    instance = self.session.identity.instance(),
                    operation = self.operation,
                    client = %self.said("client"),
                    request = %self.said("request"),
                    arguments = %request.arguments(),
                    duration_us = self.micros(),
                    success = false,
                    code = fault.code(),
                    error = %fault.reason(),
                    "host service call refused"
                );
            }
            Some(fault) => {
                tracing::info!(
                    target: "outrigger_services::hostserve",
                    plugin = self.session.identity.name(),
                    instance = self.session.identity.instance(),
                    operation = self.operation,
                    client = %self.said("client"),
                    request = %self.said("request"),
                    arguments = %request.arguments(),
                    duration_us = self.micros(),
                    success = false,
                    code = fault.code(),
                    error = %fault.reason(),
                    "host service call failed"
                );
            }
        }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// What the plugin says about itself: for the log, never for a decision.
    fn said(&self, key: &'static str) -> Cow<'static, str> {
        match self.metadata.get(key) {
            None => "".into(),
            Some(value) => Quoted(&String::from_utf8_lossy(value.as_bytes()))
                .to_string()
                .into(),
        }
    }
}

/// How `fault` reaches the plugin: in the reply, or as the call's status.
pub(crate) fn failed<R: Reply>(operation: &str, subject: &str, fault: &Fault) -> Result<R, Status> {
    match fault.told() {
        Told::Status(status) => Err(status),
        Told::InBand(text) if subject.is_empty() => Ok(R::failed(format!("{operation}: {text}"))),
        Told::InBand(text) => Ok(R::failed(format!(
            "{operation} {}: {text}",
            Quoted(subject)
        ))),
    }
}
