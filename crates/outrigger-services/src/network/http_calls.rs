//! HTTP requests of a plugin, with their redirects, and replies on their way to it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use outrigger_wire::proto::host::*;
use tonic::{Request, Status};

use super::account::Account;
use super::deadline::{Activity, Watch};
use super::egress::{Allowance, Egress};
use super::http::{Prepared, Reply, ReplyBody};
use crate::arguments::Arguments;
use crate::fault::Fault;
use crate::leases::Slot;
use crate::operation::{Described, Operation};
use crate::running::{Caller, Running};
use crate::streaming::Replies;

/// Room for what surrounds a reply's body in a message, and each of its fields,
/// in bytes.
const AROUND_BODY: usize = 1024;
const AROUND_FIELD: usize = 16;

/// Sends a request, and answers with the whole reply, which fits into a message.
pub(super) async fn whole(
    egress: &Egress,
    operation: Operation,
    request: Request<HttpRequest>,
) -> Result<HttpResponse, Status> {
    let mut answer = send(egress, operation, request).await?;
    let head = answer.head();
    let fields = head.headers.iter();
    let around: usize = fields
        .map(|field| field.name.len() + field.value.len() + AROUND_FIELD)
        .sum();
    let room = egress.session().limits().message;
    let room = room.saturating_sub(AROUND_BODY + around + head.url.len());
    let body = answer.allowed.within(answer.reply.body.whole(room)).await;
    let body = match body {
        Ok(body) => body,
        Err(fault) => return Err(answer.running.fail(&fault)),
    };
    egress.session().pace(body.len() as u64).await;
    answer.running.read(body.len() as u64);
    let response = HttpResponse { body, ..head };
    answer.running.finish(Ok(response))
}

/// Sends a request, and answers with the head of the reply and the parts of its body.
pub(super) async fn streamed(
    egress: &Egress,
    operation: Operation,
    request: Request<HttpRequest>,
) -> Result<Replies<HttpStreamResponse>, Status> {
    let mut answer = send(egress, operation, request).await?;
    let head = HttpStreamResponse {
        part: Some(http_stream_response::Part::Head(answer.head())),
    };
    let limits = egress.limits();
    let account = Arc::new(Account::new(answer.running, answer.slot));
    let (activity, cut) = (Arc::new(Activity::new(limits)), answer.reply.body.cut());
    let body = StreamedBody {
        watch: Watch::new(activity.clone(), account.clone(), move || cut.abort()),
        body: answer.reply.body,
        rest: Bytes::new(),
        activity,
        account,
        chunk: limits.chunk.max(1),
    };
    let first = futures_util::stream::iter([Ok(head)]);
    let parts = futures_util::stream::unfold(Some(body), async |body| {
        let mut body = body?;
        let next = body.next().await;
        if let Some(late) = body.watch.told() {
            return Some((Err(late), None));
        }
        match next {
            Ok(Some(data)) => {
                let part = Some(http_stream_response::Part::Data(data));
                Some((Ok(HttpStreamResponse { part }), Some(body)))
            }
            Ok(None) => {
                body.account.end();
                None
            }
            Err(fault) => Some((Err(body.account.fail(fault)), None)),
        }
    });
    Ok(Box::pin(first.chain(parts)))
}

/// Sends a request, and as many further ones as its redirects ask for and
/// the plugin wants followed; each has a record of its own, and the last
/// one is still open.
async fn send(
    egress: &Egress,
    operation: Operation,
    request: Request<HttpRequest>,
) -> Result<Answer, Status> {
    let (caller, request) = Caller::of(request);
    let show = |shown: &mut Arguments| request.show(shown);
    let mut running = egress.session().begin_call(operation, &caller, show)?;
    let limits = egress.limits();
    let usual = egress.session().limits().call_timeout;
    let (asked, most) = (request.timeout_ms, limits.total_timeout);
    let allowed = Allowance::new(asked, usual, "call_timeout", most);
    let mut redirects = request.follow_redirects;
    let checked = if redirects > limits.redirects {
        let most = limits.redirects;
        Err(Fault::abuse(format!(
            "at most {most} redirects can be followed"
        )))
    } else {
        Prepared::new(request, limits)
    };
    let started = checked.and_then(|prepared| Ok((prepared, egress.session().slot()?)));
    let (mut prepared, mut slot) = match started {
        Ok(started) => started,
        Err(fault) => return Err(running.fail(&fault)),
    };
    loop {
        let sent = prepared.body_len() as u64;
        egress.session().pace(sent).await;
        let sending = prepared.send(egress, allowed, &running);
        let next = match sending.await {
            Err(fault) => Err(fault),
            Ok(reply) if redirects == 0 => Ok((reply, None)),
            Ok(reply) => prepared.redirected(&reply).map(|next| (reply, next)),
        };
        match next {
            Err(fault) => return Err(running.fail(&fault)),
            Ok((reply, None)) => {
                let url = prepared.url.to_string();
                return Ok(Answer {
                    running,
                    slot,
                    reply,
                    url,
                    allowed,
                });
            }
            Ok((reply, Some(next))) => {
                drop(reply);
                drop(slot);
                running.end(None);
                redirects -= 1;
                prepared = next;
                running = egress.session().begin_call(operation, &caller, |shown| {
                    shown
                        .text("method", prepared.method.as_str())
                        .url("url", &prepared.url.to_string())
                        .flag("redirect", true);
                })?;
                slot = match egress.session().slot() {
                    Ok(slot) => slot,
                    Err(fault) => return Err(running.fail(&fault)),
                };
            }
        }
    }
}

/// A reply whose body is still to come.
struct Answer {
    running: Running,
    slot: Slot,
    reply: Reply,
    url: String,
    allowed: Allowance,
}

impl Answer {
    fn head(&mut self) -> HttpResponse {
        HttpResponse {
            status: u32::from(self.reply.status.as_u16()),
            headers: std::mem::take(&mut self.reply.headers),
            body: Bytes::new(),
            url: self.url.clone(),
        }
    }
}

/// A reply's body on its way to a plugin.
struct StreamedBody {
    body: ReplyBody,
    /// Of a part that is larger than a message should be.
    rest: Bytes,
    activity: Arc<Activity>,
    watch: Watch,
    account: Arc<Account>,
    chunk: usize,
}

impl StreamedBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        if self.rest.is_empty() {
            // Ends, too, when the watch closes the connection.
            match self.body.next().await? {
                Some(part) => self.rest = part,
                None => return Ok(None),
            }
        }
        let size = self.rest.len().min(self.chunk);
        let data = self.rest.split_to(size);
        self.activity.note();
        self.account.received(data.len()).await;
        self.activity.note();
        Ok(Some(data))
    }
}
