//! A word for people who wait.

use std::io::IsTerminal as _;
use std::time::Duration;

use crate::output;

/// How long nothing is said of something that takes time.
const SILENCE: Duration = Duration::from_millis(300);

/// Waits for `work`; on a terminal, what takes longer than a moment is named while
/// it takes.
pub(super) async fn shown<T>(what: &str, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = tokio::time::sleep(SILENCE) => {}
    }
    output::passing(Some(what));
    let done = work.await;
    output::passing(None);
    done
}
