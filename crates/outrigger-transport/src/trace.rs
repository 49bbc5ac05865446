//! Which trace a call belongs to, and that the calls it leads to belong to it, too.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of a `traceparent` of version 00, in bytes: `00-TRACE-PARENT-FLAGS`.
const PARENT_LENGTH: usize = 55;
/// The longest `traceparent` of a later version that is read, in bytes.
const MAX_PARENT: usize = 256;
/// The longest `tracestate` that is passed on, in bytes.
const MAX_STATE: usize = 512;
/// Where the ids stand in a `traceparent`.
const TRACE_ID: std::ops::Range<usize> = 3..35;
const PARENT_ID: std::ops::Range<usize> = 36..52;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Which trace a call belongs to: the `traceparent` and the `tracestate` of
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/), checked. Clones are cheap.
///
/// What a server received with a call is the [`current`](Self::current) one of the
/// handler of the call, and of the stream that it answers with. A call that is made
/// there over a [`Channel`](crate::Channel) gets it, unless it has a `traceparent` of
/// its own. So a trace goes on through a host and a plugin that know nothing of
/// OpenTelemetry, unchanged.
///
/// A task that a handler spawns does not inherit it: [`scope`](Self::scope) passes it
/// on. A call of net/rpc has nowhere to carry it.
///
/// # Examples
/// ```
/// use outrigger_transport::TraceContext;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let trace = TraceContext::parse(text, None).expect("well-formed");
/// assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert!(trace.is_sampled());
/// trace.clone().scope(async {
///     // A handler that spawns a task takes it along.
///     let current = TraceContext::current().expect("in a call");
///     let task = tokio::spawn(current.scope(async { TraceContext::current() }));
///     assert_eq!(task.await.expect("no panic"), Some(trace));
/// }).await;
/// assert_eq!(TraceContext::current(), None);
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// ASCII of version 00.
    parent: [u8; PARENT_LENGTH],
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads the values of the two headers. A `tracestate` that is longer than 512
    /// bytes, or not printable ASCII, is left out.
    ///
    /// `None` if `traceparent` is not well-formed: the call then has no trace. One of
    /// a later version is read as far as version 00 knows it.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut parent: [u8; PARENT_LENGTH] = traceparent
            .as_bytes()
            .get(..PARENT_LENGTH)?
            .try_into()
            .ok()?;
        let rest = traceparent.as_bytes().get(PARENT_LENGTH..)?;
        let [b'0'..=b'9' | b'a'..=b'f', b'0'..=b'9' | b'a'..=b'f', ..] = parent else {
            return None;
        };
        let is_known = parent.starts_with(b"00") && rest.is_empty();
        let is_later = !parent.starts_with(b"00") && !parent.starts_with(b"ff");
        let goes_on = rest.first().is_none_or(|next| *next == b'-');
        if !(is_known || is_later && goes_on && traceparent.len() <= MAX_PARENT) {
            return None;
        }
        let is_well_formed = parent.iter().enumerate().all(|(at, byte)| match at {
            2 | 35 | 52 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
        let is_some = |id: std::ops::Range<usize>| {
            let id = parent.get(id);
            id.is_some_and(|id| id.iter().any(|digit| *digit != b'0'))
        };
        if !is_well_formed || !is_some(TRACE_ID) || !is_some(PARENT_ID) {
            return None;
        }
        if is_later {
            parent[..2].copy_from_slice(b"00");
        }
        let state = tracestate.filter(|state| {
            (1..=MAX_STATE).contains(&state.len())
                && state.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        });
        Some(Self {
            parent,
            state: state.map(Into::into),
        })
    }

    /// What the metadata of a call says.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next()?;
        if parents.next().is_some() {
            return None;
        }
        let states = headers.get_all(TRACESTATE).iter();
        let states: Option<Vec<&str>> = states.map(|state| state.to_str().ok()).collect();
        let state = states.filter(|states| !states.is_empty());
        let state = state.map(|states| states.join(","));
        Self::parse(parent.to_str().ok()?, state.as_deref())
    }

    /// That of the call that is answered here.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs `work` as a part of the trace.
    ///
    /// # Cancel safety
    /// That of `work`.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self, work)
    }

    /// [`scope`](Self::scope) for work that does not wait.
    pub fn sync_scope<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }

    /// The id of the trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.text().get(TRACE_ID).unwrap_or_default()
    }

    /// The id of the part of the trace that made the call: 16 hexadecimal digits.
    pub fn parent_id(&self) -> &str {
        self.text().get(PARENT_ID).unwrap_or_default()
    }

    /// Whether whoever began the trace keeps it.
    pub fn is_sampled(&self) -> bool {
        let last = char::from(self.parent[PARENT_LENGTH - 1]);
        last.to_digit(16).is_some_and(|flags| flags & 1 == 1)
    }

    /// What tracing systems say to themselves along the way: the `tracestate`.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    fn text(&self) -> &str {
        // It was checked to be ASCII.
        std::str::from_utf8(&self.parent).unwrap_or_default()
    }

    /// Lets a call go on with the trace of the one that is answered here, unless it
    /// has one.
    pub(crate) fn pass_on(headers: &mut HeaderMap) {
        if headers.contains_key(TRACEPARENT) {
            return;
        }
        let _ = CURRENT.try_with(|current| current.put(headers));
    }

    fn put(&self, headers: &mut HeaderMap) {
        if let Ok(parent) = HeaderValue::from_bytes(&self.parent) {
            headers.insert(TRACEPARENT, parent);
        }
        match self.state().map(HeaderValue::from_str) {
            Some(Ok(state)) => headers.insert(TRACESTATE, state),
            Some(Err(_)) | None => headers.remove(TRACESTATE),
        };
    }
}

/// Its `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TraceContext").field(&self.text()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(*name, value);
        }
        headers
    }

    #[test]
    fn what_is_no_traceparent_is_no_trace() {
        let at = |at: usize, with: &str| {
            let mut text = PARENT.to_owned();
            text.replace_range(at..at + with.len(), with);
            text
        };
        for bad in [
            String::new(),
            PARENT[..54].to_owned(),
            format!("{PARENT}0"),
            format!("{PARENT}-00"),
            at(0, "ff"),
            at(0, "0g"),
            at(2, "_"),
            at(35, "0"),
            at(52, " "),
            at(3, "A"),
            at(53, "x"),
            at(3, &"0".repeat(32)),
            at(36, &"0".repeat(16)),
            format!("01{}x", &PARENT[2..]),
            format!("01{}-{}", &PARENT[2..], "0".repeat(MAX_PARENT)),
            "\u{e9}".repeat(40),
        ] {
            assert_eq!(TraceContext::parse(&bad, None), None, "{bad}");
        }
        let twice = headers(&[("traceparent", PARENT), ("traceparent", PARENT)]);
        assert_eq!(TraceContext::of(&twice), None);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for rest in ["", "-more"] {
            let later = format!("cc{}{rest}", &PARENT[2..]);
            let trace = TraceContext::parse(&later, None).expect("readable");
            assert_eq!(trace.to_string(), PARENT);
        }
    }

    #[test]
    fn the_sampling_decision_is_read_and_kept() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("03", true)] {
            let text = format!("{}{flags}", &PARENT[..53]);
            let trace = TraceContext::parse(&text, None).expect("well-formed");
            assert_eq!(trace.is_sampled(), sampled, "{flags}");
            assert_eq!(trace.to_string(), text);
        }
    }

    #[test]
    fn states_are_joined_and_those_that_are_too_long_are_left_out() {
        let two = headers(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ]);
        let trace = TraceContext::of(&two).expect("well-formed");
        assert_eq!(trace.state(), Some("a=1,b=2"));
        let long = "x".repeat(MAX_STATE - 1);
        let exact = headers(&[("traceparent", PARENT), ("tracestate", &format!("{long}x"))]);
        assert!(
            TraceContext::of(&exact)
                .expect("well-formed")
                .state()
                .is_some()
        );
        for bad in [format!("{long}xx"), "a=\u{e9}".to_owned(), String::new()] {
            let bad = headers(&[("traceparent", PARENT), ("tracestate", &bad)]);
            assert_eq!(TraceContext::of(&bad).expect("well-formed").state(), None);
        }
    }

    #[test]
    fn a_call_goes_on_with_the_trace_it_is_made_in_unless_it_has_one() {
        let trace = TraceContext::parse(PARENT, Some("a=1")).expect("well-formed");
        let mut outside = HeaderMap::new();
        TraceContext::pass_on(&mut outside);
        assert!(outside.is_empty());
        let other = PARENT.replace('4', "5");
        trace.clone().sync_scope(|| {
            let mut call = headers(&[("tracestate", "stale=1")]);
            TraceContext::pass_on(&mut call);
            assert_eq!(TraceContext::of(&call), Some(trace));
            let mut own = headers(&[("traceparent", &other)]);
            TraceContext::pass_on(&mut own);
            assert_eq!(own, headers(&[("traceparent", &other)]));
        });
    }

    proptest! {
        #[test]
        fn whatever_a_peer_sends_is_no_trace_or_one_that_reads_the_same_again(
            parent in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,300})?|.{0,60}",
            state in proptest::option::of(".{0,600}"),
        ) {
            if let Some(trace) = TraceContext::parse(&parent, state.as_deref()) {
                let mut headers = HeaderMap::new();
                trace.put(&mut headers);
                prop_assert_eq!(TraceContext::of(&headers), Some(trace));
            }
        }
    }
}
