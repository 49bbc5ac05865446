//! The calling end of the control socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_host::{Address, AppProtocolVersion, Reattach};
use outrigger_transport::{Channel, ChannelOptions};
use outrigger_wire::Excerpt;
use tokio::net::UnixStream;
use tonic::{Request, Response, Status};

use crate::control::place::{Place, USUAL_FOLDER};
use crate::control::proto::control_client::ControlClient;
use crate::control::{proto, socket, trouble};
use crate::failure::{Exit, Failure, printable};

/// How long a run may take to take a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a question may take that only looks.
pub(crate) const LOOK: Duration = Duration::from_secs(30);
/// How long something may take that starts or stops a plugin. The host has shorter
/// deadlines of its own, which say more.
pub(crate) const ACT: Duration = Duration::from_secs(15 * 60);

/// Which run is meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct WhichRun {
    /// The folder that the run serves. Without it, `plugins` if that is served,
    /// or else the only folder that is.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,

    /// The control socket of the run, where it is not in its usual place.
    #[arg(long, value_name = "PATH", env = "OUTRIGGER_CONTROL_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
}

/// A run that answers.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) grpc: ControlClient<Channel>,
}

impl WhichRun {
    /// The place of the run that is meant, whether or not one is there.
    ///
    /// # Errors
    /// `run-not-found` where no run is meant by saying nothing, `run-ambiguous`
    /// where there are several.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(Place::at(socket));
        }
        if let Some(folder) = &self.folder {
            return Ok(of(folder));
        }
        let usual = of(Path::new(USUAL_FOLDER));
        if usual.holder().is_some() {
            return Ok(usual);
        }
        let mut all = Place::all();
        if all.len() > 1 {
            let message = format!("{} runs serve folders; which one is meant?", all.len());
            let failure = all.iter().fold(
                Failure::usage("run-ambiguous", message),
                |failure, (_, holder)| {
                    let folder = printable(&holder.folder);
                    failure.note(format!("process {} serves `{folder}`", holder.pid))
                },
            );
            return Err(failure.help("name the folder with `--folder`"));
        }
        all.pop().map(|(place, _)| place).ok_or_else(|| {
            let message = "no `outrigger run` of this user serves a folder";
            Failure::new(Exit::NotStarted, "run-not-found", message).help(
                "start one with `outrigger run FOLDER`, or name the socket of another \
                 user's with `--socket`",
            )
        })
    }

    /// Connects to the run that is meant.
    ///
    /// # Errors
    /// As [`place`](Self::place); `run-not-found` if nobody serves there,
    /// `control-untrusted` if somebody else does.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let place = self.place()?;
        self.connect_to(&place).await
    }

    pub(crate) async fn connect_to(&self, place: &Place) -> Result<Client, Failure> {
        let path = place.socket();
        let stream = UnixStream::connect(path).await.map_err(|error| {
            let what = match (&self.socket, &self.folder) {
                (None, Some(folder)) => format!("`{}`", printable(&folder.display().to_string())),
                _ => format!("at `{}`", printable(&path.display().to_string())),
            };
            let failure = match error.kind() {
                ErrorKind::PermissionDenied => return refused(path),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                    let message = format!("no `outrigger run` serves {what}");
                    Failure::new(Exit::NotStarted, "run-not-found", message)
                }
                _ => {
                    let message =
                        format!("the `outrigger run` that serves {what} cannot be reached");
                    Failure::new(Exit::NotStarted, "control-lost", message).note(error.to_string())
                }
            };
            failure.help("start one with `outrigger run FOLDER`")
        })?;
        let user = socket::user_of(&stream);
        // Root may look at anybody's.
        if !user.is_some_and(socket::is_trusted) && !rustix::process::geteuid().is_root() {
            let message = format!(
                "another user listens at `{}`",
                printable(&path.display().to_string())
            );
            return Err(Failure::new(Exit::NotStarted, "control-untrusted", message)
                .help("only runs of your own, and of root, are trusted"));
        }
        let options = ChannelOptions {
            connect_timeout: CONNECT,
            ..ChannelOptions::default()
        };
        let channel = Channel::connect(Box::new(stream), options).await;
        let channel = channel.map_err(|error| {
            if user.is_some_and(|user| user != rustix::process::geteuid().as_raw()) {
                return refused(path);
            }
            let message = "the running `outrigger run` did not answer as it should";
            Failure::new(Exit::NotStarted, "control-lost", message)
                .note(printable(&error.to_string()))
                .caused_by(&error)
        })?;
        Ok(Client {
            grpc: ControlClient::new(channel),
        })
    }
}

/// This user is none of those that a run answers.
fn refused(path: &Path) -> Failure {
    let path = printable(&path.display().to_string());
    let message = format!("the `outrigger run` at `{path}` is not for this user");
    Failure::new(Exit::NotStarted, "control-refused", message)
        .help("only the user that started it, and root, may use its socket")
}

impl Client {
    /// How to join a plugin of the run, which is started if it may be.
    ///
    /// # Errors
    /// Why it cannot be called.
    pub(crate) async fn open(mut self, plugin: &str) -> Result<Reattach, Failure> {
        let plugin = plugin.to_owned();
        let request = within(ACT, proto::OpenRequest { plugin });
        let open = reply(self.grpc.open(request).await)?;
        let strange = || {
            let message = "the running `outrigger run` did not answer as it should";
            Failure::new(Exit::NotStarted, "control-lost", message).note(format!(
                "a socket at {}",
                Excerpt::new(open.socket.as_bytes())
            ))
        };
        Ok(Reattach {
            transport: open.protocol.parse().map_err(|_| strange())?,
            version: AppProtocolVersion(open.app_version),
            address: Address::unix(Path::new(&open.socket)).ok_or_else(strange)?,
            pid: None,
            started: None,
            test: true,
        })
    }
}

/// The place of a folder as it was named.
pub(crate) fn of(folder: &Path) -> Place {
    let absolute = folder.canonicalize();
    let absolute = absolute.or_else(|_| std::path::absolute(folder));
    Place::of(absolute.as_deref().unwrap_or(folder))
}

/// A request that is given up after `limit`.
pub(crate) fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

/// The reply, or the failure that the run told.
pub(crate) fn reply<T>(reply: Result<Response<T>, Status>) -> Result<T, Failure> {
    reply
        .map(Response::into_inner)
        .map_err(|status| trouble::failure(&status))
}
