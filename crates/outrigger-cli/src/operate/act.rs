//! `outrigger start`, `stop` and `restart`.

use serde_json::json;

use crate::args::ActArgs;
use crate::control::client::{ACT, reply, within};
use crate::control::proto;
use crate::failure::Failure;
use crate::operate::answer::print;
use crate::operate::progress;
use crate::shown;

/// What is to be done with a plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Start,
    Stop,
    Restart,
}

impl Action {
    /// What is being done.
    fn gerund(self) -> &'static str {
        match self {
            Self::Start => "starting",
            Self::Stop => "stopping",
            Self::Restart => "restarting",
        }
    }
}

/// Has the run do something with a plugin, and prints how it is then.
///
/// # Errors
/// As [`WhichRun::connect`](crate::control::client::WhichRun::connect), and what
/// the run says.
///
/// # Cancel safety
/// What was begun goes on when the future is dropped.
pub(crate) async fn act(args: &ActArgs, action: Action) -> Result<(), Failure> {
    let waiting = format!("{} `{}` …", action.gerund(), args.name);
    let done = progress::shown(&waiting, done(args, action)).await;
    print(
        args.json,
        done,
        |(plugin, ended)| {
            json!({
                "plugin": shown::json(plugin),
                "ended": (!ended.is_empty()).then_some(ended),
            })
        },
        |(plugin, ended)| match ended.as_str() {
            "" => shown::start_line(plugin),
            ended => format!("{} stopped: it {ended}\n", plugin.name),
        },
    )
}

async fn done(args: &ActArgs, action: Action) -> Result<(proto::Plugin, String), Failure> {
    let mut grpc = args.run.connect().await?.grpc;
    let plugin = args.name.clone();
    let (plugin, ended) = match action {
        Action::Start => {
            let reply = reply(
                grpc.start(within(ACT, proto::StartRequest { plugin }))
                    .await,
            )?;
            (reply.plugin, String::new())
        }
        Action::Stop => {
            let reply = reply(grpc.stop(within(ACT, proto::StopRequest { plugin })).await)?;
            (reply.plugin, reply.ended)
        }
        Action::Restart => {
            let request = within(ACT, proto::RestartRequest { plugin });
            (reply(grpc.restart(request).await)?.plugin, String::new())
        }
    };
    Ok((plugin.unwrap_or_default(), ended))
}
